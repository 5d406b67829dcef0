-- The schema of one service's log on MariaDB and MySQL. Every statement may run again: what is there stays.
-- Names are bytes (VARBINARY), so that their order and their equality are those of UTF-8, whatever the server's own is.

CREATE TABLE IF NOT EXISTS meta (
    name VARBINARY(100) PRIMARY KEY, value VARBINARY(1000) NOT NULL
) ENGINE=InnoDB;

-- The log: every row a record, in commit order, never changed and never deleted.
CREATE TABLE IF NOT EXISTS log (
    position    BIGINT PRIMARY KEY,       -- 1, 2, ... without gaps but those a leap recorded in incarnations
    kind        VARBINARY(20) NOT NULL,   -- event, command, answer, saga, effect, repair
    destination VARBINARY(200) NOT NULL,  -- the service it is for; '' when it stays at home
    stream      VARBINARY(1000) NOT NULL, -- Type/key of the aggregate or saga; '' for none
    version     BIGINT,                   -- 1, 2, ... in the stream; NULL when it does not count (a rejection)
    type        VARBINARY(500) NOT NULL,
    data        LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, -- the payload, JSON, as it was encoded
    tx          VARBINARY(200) NOT NULL,
    correlation VARBINARY(200) NOT NULL,
    cause       VARBINARY(300) NOT NULL,
    at          BIGINT NOT NULL,          -- microseconds since 1970 UTC
    headers     LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, -- JSON; defaults are left out
    -- Loads and lists streams, and keeps two records from being one version. NULLs differ: rejections have their place.
    UNIQUE KEY log_stream (stream, version),
    -- Serves exchange when it catches up; live frames come from memory.
    KEY log_destination (destination, position),
    -- Serve the trail.
    KEY log_tx (tx),
    KEY log_correlation (correlation)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- Each opening for writing, oldest first: its id, the first position it could give, and how far a repair bridged.
CREATE TABLE IF NOT EXISTS incarnations (
    number BIGINT AUTO_INCREMENT PRIMARY KEY,
    id VARBINARY(200) NOT NULL, first BIGINT NOT NULL, bridged BIGINT NOT NULL, at BIGINT NOT NULL
) ENGINE=InnoDB;

-- One row: the last position given, how many groups were committed, and who may write. Every commit changes it, first of
-- all, and only as the writer that is in it: one that was cut off and has lost the log to another can change nothing.
CREATE TABLE IF NOT EXISTS head (
    one TINYINT PRIMARY KEY, position BIGINT NOT NULL, group_count BIGINT NOT NULL, incarnation VARBINARY(200) NOT NULL
) ENGINE=InnoDB;

-- How far this service has come in others' logs, and its views and reactions in any.
CREATE TABLE IF NOT EXISTS cursors (
    name VARBINARY(1000) PRIMARY KEY, incarnation VARBINARY(200) NOT NULL, position BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- The small tables in one: request, waiting, timer, saga, snapshot, view, service. Data is text where it can be.
CREATE TABLE IF NOT EXISTS small (
    kind VARBINARY(20) NOT NULL, name VARBINARY(1000) NOT NULL,
    data LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, bytes LONGBLOB, PRIMARY KEY (kind, name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;
