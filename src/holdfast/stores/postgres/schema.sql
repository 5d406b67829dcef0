-- The schema of one service's log on PostgreSQL. Every statement may run again: what is there stays.
-- Text is ordered by its bytes (COLLATE "C"), whatever the database's own order is.

CREATE TABLE IF NOT EXISTS meta (name text PRIMARY KEY, value text NOT NULL);

-- The log: every row a record, in commit order, never changed and never deleted.
CREATE TABLE IF NOT EXISTS log (
    position    bigint PRIMARY KEY,       -- 1, 2, ... without gaps but those a leap recorded in incarnations
    kind        text NOT NULL,            -- event, command, answer, saga, effect, repair
    destination text NOT NULL,            -- the service it is for; '' when it stays at home
    stream      text COLLATE "C" NOT NULL, -- Type/key of the aggregate or saga; '' for none
    version     bigint,                   -- 1, 2, ... in the stream; NULL when it does not count (a rejection)
    type        text NOT NULL,
    data        text NOT NULL,            -- the payload, JSON, byte for byte as it was encoded
    tx          text COLLATE "C" NOT NULL,
    correlation text COLLATE "C" NOT NULL,
    cause       text NOT NULL,
    at          bigint NOT NULL,          -- microseconds since 1970 UTC
    headers     text NOT NULL             -- JSON; fields with their defaults are left out
);
-- Loads and lists streams, and keeps two records from being one version. NULLs differ: rejections have their place too.
CREATE UNIQUE INDEX IF NOT EXISTS log_stream ON log (stream, version) WHERE stream <> '';
-- Serves exchange when it catches up; live frames come from memory.
CREATE INDEX IF NOT EXISTS log_destination ON log (destination, position) WHERE destination <> '';
-- Serve the trail.
CREATE INDEX IF NOT EXISTS log_tx ON log (tx);
CREATE INDEX IF NOT EXISTS log_correlation ON log (correlation) WHERE correlation <> '';

-- Each opening for writing, oldest first: its id, the first position it could give, and how far a repair bridged.
CREATE TABLE IF NOT EXISTS incarnations (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL, first bigint NOT NULL, bridged bigint NOT NULL, at bigint NOT NULL
);

-- One row: the last position given, how many groups were committed, and who may write. Every commit changes it, first of
-- all, and only as the writer that is in it: one that was cut off and has lost the log to another can change nothing.
CREATE TABLE IF NOT EXISTS head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL, group_count bigint NOT NULL, incarnation text NOT NULL
) WITH (fillfactor = 10);

-- How far this service has come in others' logs, and its views and reactions in any.
CREATE TABLE IF NOT EXISTS cursors (
    name text COLLATE "C" PRIMARY KEY, incarnation text NOT NULL, position bigint NOT NULL
) WITH (fillfactor = 50);

-- The small tables in one: request, waiting, timer, saga, snapshot, view, service. Data is text where it can be.
CREATE TABLE IF NOT EXISTS small (
    kind text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, data text, bytes bytea, PRIMARY KEY (kind, name)
);
