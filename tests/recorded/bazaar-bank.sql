PRAGMA application_id=1752132708;
PRAGMA user_version=1;
BEGIN TRANSACTION;
CREATE TABLE cursors (
    name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, position INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "cursors" VALUES('exchange:counter','01m8qsr7sc3t9q5z3kre5pm8zx',86);
CREATE TABLE incarnations (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, first INTEGER NOT NULL, bridged INTEGER NOT NULL, at INTEGER NOT NULL
);
INSERT INTO "incarnations" VALUES(1,'01m8qsr7za5sajg9115kqf5k9c',1,0,1796095090666622);
CREATE TABLE log (
    position    INTEGER PRIMARY KEY,    -- 1, 2, ... without gaps but those a leap recorded in incarnations
    kind        TEXT NOT NULL,          -- event, command, answer, saga, effect, repair
    destination TEXT NOT NULL,          -- the service it is for; '' when it stays at home
    stream      TEXT NOT NULL,          -- Type/key of the aggregate or saga; '' for none
    version     INTEGER,                -- 1, 2, ... in the stream; NULL when it does not count (a rejection)
    type        TEXT NOT NULL,
    data        TEXT NOT NULL,          -- the payload, JSON
    tx          TEXT NOT NULL,
    correlation TEXT NOT NULL,
    cause       TEXT NOT NULL,
    at          INTEGER NOT NULL,       -- microseconds since 1970 UTC
    headers     TEXT NOT NULL           -- JSON; fields with their defaults are left out
);
INSERT INTO "log" VALUES(1,'event','','Account/ann',1,'bank.moved.v1','{"account":"ann","amount":100,"deal":"opened"}','01m8qsr8p3y7tfn081k834fshc','','01m8qsr8p3y7tfn081k834fshc',1796095091395617,'{"outcome":true}');
INSERT INTO "log" VALUES(2,'event','','Account/bob',1,'bank.moved.v1','{"account":"bob","amount":100,"deal":"opened"}','01m8qsr8p5m9p2kx75da6vn9ar','','01m8qsr8p5m9p2kx75da6vn9ar',1796095091397366,'{"outcome":true}');
INSERT INTO "log" VALUES(3,'answer','counter','Account/ann',NULL,'holdfast.held','{"type":"bank.moved.v1","event":{"account":"ann","amount":-30,"deal":"s1"}}','01m8qsr8p6bktn6wvp28snkpnp','','counter@22',1796095091399883,'{"hop":1,"answers":"Swapping/01m8qsr8p6bktn6wvp28snkpnp#2"}');
INSERT INTO "log" VALUES(4,'answer','counter','Account/bob',NULL,'holdfast.held','{"type":"bank.moved.v1","event":{"account":"bob","amount":30,"deal":"s1"}}','01m8qsr8p6bktn6wvp28snkpnp','','counter@23',1796095091399993,'{"hop":1,"answers":"Swapping/01m8qsr8p6bktn6wvp28snkpnp#3"}');
INSERT INTO "log" VALUES(5,'event','','Account/ann',2,'bank.moved.v1','{"account":"ann","amount":-30,"deal":"s1"}','01m8qsr8p6bktn6wvp28snkpnp','','counter@22',1796095091402616,'{"hop":1}');
INSERT INTO "log" VALUES(6,'event','','Account/bob',2,'bank.moved.v1','{"account":"bob","amount":30,"deal":"s1"}','01m8qsr8p6bktn6wvp28snkpnp','','counter@23',1796095091402616,'{"hop":1}');
INSERT INTO "log" VALUES(7,'answer','counter','',NULL,'holdfast.done','{"stage":"counter:Swapping/01m8qsr8p6bktn6wvp28snkpnp#0","commit":true}','01m8qsr8p6bktn6wvp28snkpnp','','counter@27',1796095091402616,'{"hop":1,"answers":"Swapping/01m8qsr8p6bktn6wvp28snkpnp#7"}');
INSERT INTO "log" VALUES(8,'answer','counter','Account/ann',NULL,'holdfast.rejected','{"code":"poor","message":"not that much there","facts":{"balance":70}}','01m8qsr8pa12hyj9fn3v6qpxvf','','counter@29',1796095091405427,'{"hop":1,"answers":"Swapping/01m8qsr8pa12hyj9fn3v6qpxvf#2"}');
INSERT INTO "log" VALUES(9,'answer','counter','Account/bob',NULL,'holdfast.held','{"type":"bank.moved.v1","event":{"account":"bob","amount":300,"deal":"s0"}}','01m8qsr8pa12hyj9fn3v6qpxvf','','counter@30',1796095091405498,'{"hop":1,"answers":"Swapping/01m8qsr8pa12hyj9fn3v6qpxvf#3"}');
INSERT INTO "log" VALUES(10,'answer','counter','',NULL,'holdfast.done','{"stage":"counter:Swapping/01m8qsr8pa12hyj9fn3v6qpxvf#0","commit":false}','01m8qsr8pa12hyj9fn3v6qpxvf','','counter@35',1796095091407815,'{"hop":1,"answers":"Swapping/01m8qsr8pa12hyj9fn3v6qpxvf#6"}');
INSERT INTO "log" VALUES(11,'event','counter','Account/ann',3,'bank.moved.v1','{"account":"ann","amount":1,"deal":"p0"}','01m8qsr8pfkavngmej8wkye9n8','','counter@38',1796095091416217,'{"hop":1,"answers":"Saving/01m8qsr8pfkavngmej8wkye9n8#2"}');
INSERT INTO "log" VALUES(12,'answer','counter','Account/ann',NULL,'holdfast.held','{"type":"bank.moved.v1","event":{"account":"ann","amount":-5,"deal":"s2"}}','01m8qsrhb1xf4yp5g8wj59c6b3','','counter@83',1796095100261079,'{"hop":1,"answers":"Swapping/01m8qsrhb1xf4yp5g8wj59c6b3#2"}');
INSERT INTO "log" VALUES(13,'answer','counter','Account/bob',NULL,'holdfast.held','{"type":"bank.moved.v1","event":{"account":"bob","amount":5,"deal":"s2"}}','01m8qsrhb1xf4yp5g8wj59c6b3','','counter@84',1796095100261209,'{"hop":1,"answers":"Swapping/01m8qsrhb1xf4yp5g8wj59c6b3#3"}');
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('failures','0');
INSERT INTO "meta" VALUES('log','bank');
CREATE TABLE rows (
    kind TEXT NOT NULL, key TEXT NOT NULL, data NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
INSERT INTO "rows" VALUES('request','open-ann','{"tx":"01m8qsr8p3y7tfn081k834fshc","type":"bank.move.v1","data":{"account":"ann","amount":100,"deal":"opened"}}');
INSERT INTO "rows" VALUES('request','open-bob','{"tx":"01m8qsr8p5m9p2kx75da6vn9ar","type":"bank.move.v1","data":{"account":"bob","amount":100,"deal":"opened"}}');
INSERT INTO "rows" VALUES('service','acked:counter','11');
INSERT INTO "rows" VALUES('stage','Account/ann#000000000004','{"stage":"counter:Swapping/01m8qsrhb1xf4yp5g8wj59c6b3#0","at":1796095100257041,"since":1796095100261079,"tx":"01m8qsrhb1xf4yp5g8wj59c6b3","parts":[{"cause":"counter@83","events":[["bank.moved.v1",{"account":"ann","amount":-5,"deal":"s2"}]],"hop":1}]}');
INSERT INTO "rows" VALUES('stage','Account/bob#000000000005','{"stage":"counter:Swapping/01m8qsrhb1xf4yp5g8wj59c6b3#0","at":1796095100257041,"since":1796095100261209,"tx":"01m8qsrhb1xf4yp5g8wj59c6b3","parts":[{"cause":"counter@84","events":[["bank.moved.v1",{"account":"bob","amount":5,"deal":"s2"}]],"hop":1}]}');
INSERT INTO "rows" VALUES('waiting','Account/ann#000000000001','{"producer":"counter","record":[86,"command","bank.move.v1",{"account":"ann","amount":1,"deal":"p1"},"01m8qsrhqjtg8hp65fmmkkxn3f","01m8qsrhqjtg8hp65fmmkkxn3f",1796095100658476,"","Saving/01m8qsrhqjtg8hp65fmmkkxn3f",2,{"hop":1,"key":"ann","step":"move","early":true}],"since":1796095100668748}');
CREATE UNIQUE INDEX log_stream ON log (stream, version) WHERE stream <> '';
CREATE INDEX log_destination ON log (destination, position) WHERE destination <> '';
CREATE INDEX log_tx ON log (tx);
CREATE INDEX log_correlation ON log (correlation) WHERE correlation <> '';
COMMIT;
