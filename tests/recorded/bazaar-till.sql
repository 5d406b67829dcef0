PRAGMA application_id=1752132708;
PRAGMA user_version=1;
BEGIN TRANSACTION;
CREATE TABLE cursors (
    name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, position INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "cursors" VALUES('exchange:counter','01m8qsr7sc3t9q5z3kre5pm8zx',71);
INSERT INTO "cursors" VALUES('exchange:till','01m8qsr7xhj6af2eejf4etbgak',9);
INSERT INTO "cursors" VALUES('reaction:on_booked:counter','01m8qsr7sc3t9q5z3kre5pm8zx',58);
CREATE TABLE incarnations (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, first INTEGER NOT NULL, bridged INTEGER NOT NULL, at INTEGER NOT NULL
);
INSERT INTO "incarnations" VALUES(1,'01m8qsr7xhj6af2eejf4etbgak',1,0,1796095090609202);
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
INSERT INTO "log" VALUES(1,'effect','','charge/o1',NULL,'holdfast.effect.attempted','{"attempt":1}','01m8qsr8mst7j5kh32h7568xbj','','counter@4',1796095091368479,'{"hop":1}');
INSERT INTO "log" VALUES(2,'event','counter','charge/o1',1,'till.charged.v1','{"order":"o1","cents":200}','01m8qsr8mst7j5kh32h7568xbj','','counter@4',1796095091368445,'{"hop":1,"answers":"Sale/01m8qsr8mst7j5kh32h7568xbj#4"}');
INSERT INTO "log" VALUES(3,'command','till','',NULL,'till.note.v1','{"id":"o1","text":"200 cents"}','01m8qsr8mst7j5kh32h7568xbj','','counter@7',1796095091375709,'{"hop":2,"key":"o1"}');
INSERT INTO "log" VALUES(4,'event','','note/o1',1,'till.noted.v1','{"id":"o1"}','01m8qsr8mst7j5kh32h7568xbj','','till@3',1796095091379948,'{"hop":2}');
INSERT INTO "log" VALUES(5,'effect','','charge/o2',NULL,'holdfast.effect.attempted','{"attempt":1}','01m8qsr8nq080eqprabvt8pb6n','','counter@15',1796095091389954,'{"hop":1}');
INSERT INTO "log" VALUES(6,'answer','counter','charge/o2',NULL,'holdfast.rejected','{"code":"declined","message":"the card was declined","facts":{}}','01m8qsr8nq080eqprabvt8pb6n','','counter@15',1796095091389930,'{"hop":1,"answers":"Sale/01m8qsr8nq080eqprabvt8pb6n#4"}');
INSERT INTO "log" VALUES(7,'effect','','charge/o5',NULL,'holdfast.effect.attempted','{"attempt":1}','01m8qsr9wmfr66e15hqp9f501t','','counter@55',1796095092653960,'{"hop":1}');
INSERT INTO "log" VALUES(8,'event','counter','charge/o5',1,'till.charged.v1','{"order":"o5","cents":100}','01m8qsr9wmfr66e15hqp9f501t','','counter@55',1796095092653932,'{"hop":1,"answers":"Sale/01m8qsr9wmfr66e15hqp9f501t#4"}');
INSERT INTO "log" VALUES(9,'command','till','',NULL,'till.note.v1','{"id":"o5","text":"100 cents"}','01m8qsr9wmfr66e15hqp9f501t','','counter@58',1796095092663381,'{"hop":2,"key":"o5"}');
INSERT INTO "log" VALUES(10,'event','','note/o5',1,'till.noted.v1','{"id":"o5"}','01m8qsr9wmfr66e15hqp9f501t','','till@9',1796095092673546,'{"hop":2}');
INSERT INTO "log" VALUES(11,'effect','','charge/o6',NULL,'holdfast.effect.attempted','{"attempt":1}','01m8qsra94722s4yqy0qb7exe6','','counter@65',1796095093039566,'{"hop":1}');
INSERT INTO "log" VALUES(12,'effect','','charge/o6',NULL,'holdfast.effect.unknown','{"attempt":1,"error":"ConnectionError: the line broke"}','01m8qsra94722s4yqy0qb7exe6','','counter@65',1796095093040322,'{"hop":1}');
INSERT INTO "log" VALUES(13,'effect','','charge/o7',NULL,'holdfast.effect.attempted','{"attempt":1}','01m8qsranpbzy8bzvnvy4rwc3v','','counter@71',1796095093453900,'{"hop":1}');
INSERT INTO "log" VALUES(14,'answer','counter','charge/o7',NULL,'holdfast.rejected','{"code":"declined","message":"the card was declined","facts":{}}','01m8qsranpbzy8bzvnvy4rwc3v','','counter@71',1796095093453866,'{"hop":1,"answers":"Sale/01m8qsranpbzy8bzvnvy4rwc3v#4"}');
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('failures','0');
INSERT INTO "meta" VALUES('log','till');
CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "notes" VALUES('o1','200 cents');
INSERT INTO "notes" VALUES('o5','100 cents');
CREATE TABLE rows (
    kind TEXT NOT NULL, key TEXT NOT NULL, data NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
INSERT INTO "rows" VALUES('service','acked:counter','14');
INSERT INTO "rows" VALUES('waiting','charge/o6#000000000006','{"producer":"counter","record":[65,"command","till.charge.v1",{"order":"o6","cents":100,"card":"4111"},"01m8qsra94722s4yqy0qb7exe6","stall@218",1796095093035513,"","Sale/01m8qsra94722s4yqy0qb7exe6",4,{"hop":1,"key":"o6","step":"charge","early":true}],"since":1796095093039110,"attempts":1,"error":"ConnectionError: the line broke","where":"recorded.bazaar.make_till.<locals>.charge:267","fingerprint":"e2a4e56f43e5","parked":1796095093051244,"started":1,"unknown":true}');
CREATE UNIQUE INDEX log_stream ON log (stream, version) WHERE stream <> '';
CREATE INDEX log_destination ON log (destination, position) WHERE destination <> '';
CREATE INDEX log_tx ON log (tx);
CREATE INDEX log_correlation ON log (correlation) WHERE correlation <> '';
COMMIT;
