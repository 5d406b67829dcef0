PRAGMA application_id=1752132708;
PRAGMA user_version=1;
BEGIN TRANSACTION;
CREATE TABLE cursors (
    name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, position INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "cursors" VALUES('exchange:bank','01m8qsr7za5sajg9115kqf5k9c',13);
INSERT INTO "cursors" VALUES('exchange:counter','01m8qsr7sc3t9q5z3kre5pm8zx',58);
INSERT INTO "cursors" VALUES('exchange:stall','01m8qsr7vvt7vcrv1g1n6q4874',223);
INSERT INTO "cursors" VALUES('exchange:till','01m8qsr7xhj6af2eejf4etbgak',14);
INSERT INTO "cursors" VALUES('view:Page@1:counter','01m8qsr7sc3t9q5z3kre5pm8zx',58);
INSERT INTO "cursors" VALUES('view:Page@1:stall','01m8qsr7vvt7vcrv1g1n6q4874',211);
INSERT INTO "cursors" VALUES('view:Page@1:till','01m8qsr7xhj6af2eejf4etbgak',8);
CREATE TABLE incarnations (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, first INTEGER NOT NULL, bridged INTEGER NOT NULL, at INTEGER NOT NULL
);
INSERT INTO "incarnations" VALUES(1,'01m8qsr7sc3t9q5z3kre5pm8zx',1,0,1796095090476140);
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
INSERT INTO "log" VALUES(1,'saga','','Sale/01m8qsr8mst7j5kh32h7568xbj',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o1","sku":"tea","quantity":2,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsr8mst7j5kh32h7568xbj','','01m8qsr8mst7j5kh32h7568xbj',1796095091353116,'{"hop":1}');
INSERT INTO "log" VALUES(2,'command','stall','Sale/01m8qsr8mst7j5kh32h7568xbj',2,'stall.take.v1','{"sku":"tea","order":"o1","quantity":2}','01m8qsr8mst7j5kh32h7568xbj','','01m8qsr8mst7j5kh32h7568xbj',1796095091353116,'{"hop":1,"key":"tea","step":"take","early":true}');
INSERT INTO "log" VALUES(3,'saga','','Sale/01m8qsr8mst7j5kh32h7568xbj',3,'holdfast.saga.answered','{"to":2,"type":"stall.taken.v1","answer":{"sku":"tea","order":"o1","quantity":2}}','01m8qsr8mst7j5kh32h7568xbj','','stall@210',1796095091363204,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(4,'command','till','Sale/01m8qsr8mst7j5kh32h7568xbj',4,'till.charge.v1','{"order":"o1","cents":200,"card":"4111"}','01m8qsr8mst7j5kh32h7568xbj','','stall@210',1796095091363204,'{"hop":1,"key":"o1","step":"charge","early":true}');
INSERT INTO "log" VALUES(5,'saga','','Sale/01m8qsr8mst7j5kh32h7568xbj',5,'holdfast.saga.answered','{"to":4,"type":"till.charged.v1","answer":{"order":"o1","cents":200}}','01m8qsr8mst7j5kh32h7568xbj','','till@2',1796095091370272,'{"hop":1,"step":"charge"}');
INSERT INTO "log" VALUES(6,'command','counter','Sale/01m8qsr8mst7j5kh32h7568xbj',6,'counter.book.v1','{"order":"o1","cents":200}','01m8qsr8mst7j5kh32h7568xbj','','till@2',1796095091370272,'{"hop":1,"key":"o1","step":"book"}');
INSERT INTO "log" VALUES(7,'event','counter','Order/o1',1,'counter.booked.v1','{"order":"o1","cents":200}','01m8qsr8mst7j5kh32h7568xbj','','counter@6',1796095091372844,'{"hop":1,"answers":"Sale/01m8qsr8mst7j5kh32h7568xbj#6"}');
INSERT INTO "log" VALUES(8,'saga','','Sale/01m8qsr8mst7j5kh32h7568xbj',7,'holdfast.saga.answered','{"to":6,"type":"counter.booked.v1","answer":{"order":"o1","cents":200}}','01m8qsr8mst7j5kh32h7568xbj','','counter@7',1796095091375070,'{"hop":1,"step":"book"}');
INSERT INTO "log" VALUES(9,'command','stall','Sale/01m8qsr8mst7j5kh32h7568xbj',8,'stall.send.v1','{"order":"o1"}','01m8qsr8mst7j5kh32h7568xbj','','counter@7',1796095091375070,'{"hop":1,"key":"o1","step":"send"}');
INSERT INTO "log" VALUES(10,'saga','','Sale/01m8qsr8mst7j5kh32h7568xbj',9,'holdfast.saga.answered','{"to":8,"type":"stall.sent.v1","answer":{"order":"o1"}}','01m8qsr8mst7j5kh32h7568xbj','','stall@211',1796095091380864,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(11,'event','','Sale/01m8qsr8mst7j5kh32h7568xbj',10,'counter.bought.v1','{"order":"o1","cents":200}','01m8qsr8mst7j5kh32h7568xbj','','stall@211',1796095091380864,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(12,'saga','','Sale/01m8qsr8nq080eqprabvt8pb6n',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o2","sku":"tea","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsr8nq080eqprabvt8pb6n','','01m8qsr8nq080eqprabvt8pb6n',1796095091383462,'{"hop":1}');
INSERT INTO "log" VALUES(13,'command','stall','Sale/01m8qsr8nq080eqprabvt8pb6n',2,'stall.take.v1','{"sku":"tea","order":"o2","quantity":1}','01m8qsr8nq080eqprabvt8pb6n','','01m8qsr8nq080eqprabvt8pb6n',1796095091383462,'{"hop":1,"key":"tea","step":"take","early":true}');
INSERT INTO "log" VALUES(14,'saga','','Sale/01m8qsr8nq080eqprabvt8pb6n',3,'holdfast.saga.answered','{"to":2,"type":"stall.taken.v1","answer":{"sku":"tea","order":"o2","quantity":1}}','01m8qsr8nq080eqprabvt8pb6n','','stall@212',1796095091387473,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(15,'command','till','Sale/01m8qsr8nq080eqprabvt8pb6n',4,'till.charge.v1','{"order":"o2","cents":100,"card":"4111"}','01m8qsr8nq080eqprabvt8pb6n','','stall@212',1796095091387473,'{"hop":1,"key":"o2","step":"charge","early":true}');
INSERT INTO "log" VALUES(16,'saga','','Sale/01m8qsr8nq080eqprabvt8pb6n',5,'holdfast.saga.answered','{"to":4,"type":"holdfast.rejected","answer":{"code":"declined","message":"the card was declined","facts":{}}}','01m8qsr8nq080eqprabvt8pb6n','','till@6',1796095091392156,'{"hop":1,"step":"charge"}');
INSERT INTO "log" VALUES(17,'saga','','Sale/01m8qsr8nq080eqprabvt8pb6n',6,'holdfast.saga.undoing','{"step":"charge","cause":{"code":"declined","message":"the card was declined","facts":{}}}','01m8qsr8nq080eqprabvt8pb6n','','till@6',1796095091392156,'{"hop":1,"step":"charge"}');
INSERT INTO "log" VALUES(18,'command','stall','Sale/01m8qsr8nq080eqprabvt8pb6n',7,'stall.return.v1','{"sku":"tea","order":"o2"}','01m8qsr8nq080eqprabvt8pb6n','','till@6',1796095091392156,'{"hop":1,"key":"tea","step":"take","undoes":2}');
INSERT INTO "log" VALUES(19,'saga','','Sale/01m8qsr8nq080eqprabvt8pb6n',8,'holdfast.saga.answered','{"to":7,"type":"stall.put_back.v1","answer":{"sku":"tea","order":"o2"}}','01m8qsr8nq080eqprabvt8pb6n','','stall@213',1796095091394483,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(20,'answer','','Sale/01m8qsr8nq080eqprabvt8pb6n',9,'holdfast.rejected','{"code":"declined","message":"the card was declined","facts":{}}','01m8qsr8nq080eqprabvt8pb6n','','stall@213',1796095091394483,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(21,'saga','','Swapping/01m8qsr8p6bktn6wvp28snkpnp',1,'holdfast.saga.begun','{"type":"counter.swap.v1","message":{"deal":"s1","giver":"ann","taker":"bob","amount":30},"shape":"98783de468763006","destination":"","answers":"","at":1796095091398623}','01m8qsr8p6bktn6wvp28snkpnp','','01m8qsr8p6bktn6wvp28snkpnp',1796095091398623,'{"hop":1}');
INSERT INTO "log" VALUES(22,'command','bank','Swapping/01m8qsr8p6bktn6wvp28snkpnp',2,'bank.move.v1','{"account":"ann","amount":-30,"deal":"s1"}','01m8qsr8p6bktn6wvp28snkpnp','','01m8qsr8p6bktn6wvp28snkpnp',1796095091398623,'{"hop":1,"key":"ann","step":"move","early":true,"stage":"1796095091398623#0"}');
INSERT INTO "log" VALUES(23,'command','bank','Swapping/01m8qsr8p6bktn6wvp28snkpnp',3,'bank.move.v1','{"account":"bob","amount":30,"deal":"s1"}','01m8qsr8p6bktn6wvp28snkpnp','','01m8qsr8p6bktn6wvp28snkpnp',1796095091398623,'{"hop":1,"key":"bob","step":"move","index":1,"early":true,"stage":"1796095091398623#0"}');
INSERT INTO "log" VALUES(24,'saga','','Swapping/01m8qsr8p6bktn6wvp28snkpnp',4,'holdfast.saga.answered','{"to":2,"type":"bank.moved.v1","answer":{"account":"ann","amount":-30,"deal":"s1"}}','01m8qsr8p6bktn6wvp28snkpnp','','bank@3',1796095091400984,'{"hop":1,"step":"move"}');
INSERT INTO "log" VALUES(25,'saga','','Swapping/01m8qsr8p6bktn6wvp28snkpnp',5,'holdfast.saga.answered','{"to":3,"type":"bank.moved.v1","answer":{"account":"bob","amount":30,"deal":"s1"}}','01m8qsr8p6bktn6wvp28snkpnp','','bank@4',1796095091401110,'{"hop":1,"step":"move","index":1}');
INSERT INTO "log" VALUES(26,'event','','Swapping/01m8qsr8p6bktn6wvp28snkpnp',6,'counter.swapped.v1','{"deal":"s1"}','01m8qsr8p6bktn6wvp28snkpnp','','bank@4',1796095091401110,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(27,'command','bank','Swapping/01m8qsr8p6bktn6wvp28snkpnp',7,'holdfast.confirm','{"attempt":0}','01m8qsr8p6bktn6wvp28snkpnp','','bank@4',1796095091401110,'{"hop":1}');
INSERT INTO "log" VALUES(28,'saga','','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',1,'holdfast.saga.begun','{"type":"counter.swap.v1","message":{"deal":"s0","giver":"ann","taker":"bob","amount":300},"shape":"98783de468763006","destination":"","answers":"","at":1796095091402793}','01m8qsr8pa12hyj9fn3v6qpxvf','','01m8qsr8pa12hyj9fn3v6qpxvf',1796095091402793,'{"hop":1}');
INSERT INTO "log" VALUES(29,'command','bank','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',2,'bank.move.v1','{"account":"ann","amount":-300,"deal":"s0"}','01m8qsr8pa12hyj9fn3v6qpxvf','','01m8qsr8pa12hyj9fn3v6qpxvf',1796095091402793,'{"hop":1,"key":"ann","step":"move","early":true,"stage":"1796095091402793#0"}');
INSERT INTO "log" VALUES(30,'command','bank','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',3,'bank.move.v1','{"account":"bob","amount":300,"deal":"s0"}','01m8qsr8pa12hyj9fn3v6qpxvf','','01m8qsr8pa12hyj9fn3v6qpxvf',1796095091402793,'{"hop":1,"key":"bob","step":"move","index":1,"early":true,"stage":"1796095091402793#0"}');
INSERT INTO "log" VALUES(31,'saga','','Swapping/01m8qsr8p6bktn6wvp28snkpnp',8,'holdfast.saga.answered','{"to":7,"type":"holdfast.done","answer":{}}','01m8qsr8p6bktn6wvp28snkpnp','','bank@7',1796095091403981,'{"hop":1}');
INSERT INTO "log" VALUES(32,'saga','','Swapping/01m8qsr8p6bktn6wvp28snkpnp',9,'holdfast.saga.settled','{}','01m8qsr8p6bktn6wvp28snkpnp','','bank@7',1796095091403981,'{"hop":1}');
INSERT INTO "log" VALUES(33,'saga','','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',4,'holdfast.saga.answered','{"to":2,"type":"holdfast.rejected","answer":{"code":"poor","message":"not that much there","facts":{"balance":70}}}','01m8qsr8pa12hyj9fn3v6qpxvf','','bank@8',1796095091406400,'{"hop":1,"step":"move"}');
INSERT INTO "log" VALUES(34,'answer','','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',5,'holdfast.rejected','{"code":"poor","message":"not that much there","facts":{"balance":70}}','01m8qsr8pa12hyj9fn3v6qpxvf','','bank@8',1796095091406400,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(35,'command','bank','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',6,'holdfast.cancel','{"attempt":0}','01m8qsr8pa12hyj9fn3v6qpxvf','','bank@8',1796095091406400,'{"hop":1}');
INSERT INTO "log" VALUES(36,'saga','','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',7,'holdfast.saga.answered','{"to":3,"type":"bank.moved.v1","answer":{"account":"bob","amount":300,"deal":"s0"}}','01m8qsr8pa12hyj9fn3v6qpxvf','','bank@9',1796095091406529,'{"hop":1,"step":"move","index":1}');
INSERT INTO "log" VALUES(37,'saga','','Saving/01m8qsr8pfkavngmej8wkye9n8',1,'holdfast.saga.begun','{"type":"counter.save.v1","message":{"deal":"p0","account":"ann"},"shape":"030cf1aa7759352d","destination":"","answers":""}','01m8qsr8pfkavngmej8wkye9n8','','01m8qsr8pfkavngmej8wkye9n8',1796095091407991,'{"hop":1}');
INSERT INTO "log" VALUES(38,'command','bank','Saving/01m8qsr8pfkavngmej8wkye9n8',2,'bank.move.v1','{"account":"ann","amount":1,"deal":"p0"}','01m8qsr8pfkavngmej8wkye9n8','','01m8qsr8pfkavngmej8wkye9n8',1796095091407991,'{"hop":1,"key":"ann","step":"move","early":true}');
INSERT INTO "log" VALUES(39,'saga','','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',8,'holdfast.saga.answered','{"to":6,"type":"holdfast.done","answer":{}}','01m8qsr8pa12hyj9fn3v6qpxvf','','bank@10',1796095091409204,'{"hop":1}');
INSERT INTO "log" VALUES(40,'saga','','Swapping/01m8qsr8pa12hyj9fn3v6qpxvf',9,'holdfast.saga.settled','{}','01m8qsr8pa12hyj9fn3v6qpxvf','','bank@10',1796095091409204,'{"hop":1}');
INSERT INTO "log" VALUES(41,'saga','','Saving/01m8qsr8pfkavngmej8wkye9n8',3,'holdfast.saga.answered','{"to":2,"type":"bank.moved.v1","answer":{"account":"ann","amount":1,"deal":"p0"}}','01m8qsr8pfkavngmej8wkye9n8','','bank@11',1796095091418425,'{"hop":1,"step":"move"}');
INSERT INTO "log" VALUES(42,'event','','Saving/01m8qsr8pfkavngmej8wkye9n8',4,'counter.saved.v1','{"deal":"p0"}','01m8qsr8pfkavngmej8wkye9n8','','bank@11',1796095091418425,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(43,'saga','','Sale/01m8qsr8pwf2eae8b312crt9g7',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o8","sku":"glass","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsr8pwf2eae8b312crt9g7','','01m8qsr8pwf2eae8b312crt9g7',1796095091420987,'{"hop":1}');
INSERT INTO "log" VALUES(44,'command','stall','Sale/01m8qsr8pwf2eae8b312crt9g7',2,'stall.take.v1','{"sku":"glass","order":"o8","quantity":1}','01m8qsr8pwf2eae8b312crt9g7','','01m8qsr8pwf2eae8b312crt9g7',1796095091420987,'{"hop":1,"key":"glass","step":"take","early":true}');
INSERT INTO "log" VALUES(45,'saga','','Sale/01m8qsr8pwf2eae8b312crt9g7',3,'holdfast.saga.answered','{"to":2,"type":"holdfast.rejected","answer":{"code":"skipped","message":"there is no glass","facts":{"by":"on call"}}}','01m8qsr8pwf2eae8b312crt9g7','','stall@215',1796095091825992,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(46,'saga','','Sale/01m8qsr8pwf2eae8b312crt9g7',4,'holdfast.saga.undoing','{"step":"take","cause":{"code":"skipped","message":"there is no glass","facts":{"by":"on call"}}}','01m8qsr8pwf2eae8b312crt9g7','','stall@215',1796095091825992,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(47,'answer','','Sale/01m8qsr8pwf2eae8b312crt9g7',5,'holdfast.rejected','{"code":"skipped","message":"there is no glass","facts":{"by":"on call"}}','01m8qsr8pwf2eae8b312crt9g7','','stall@215',1796095091825992,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(48,'saga','','Sale/01m8qsr93jz167peq16jqz3s66',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o3","sku":"brick","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsr93jz167peq16jqz3s66','','01m8qsr93jz167peq16jqz3s66',1796095091826332,'{"hop":1}');
INSERT INTO "log" VALUES(49,'command','stall','Sale/01m8qsr93jz167peq16jqz3s66',2,'stall.take.v1','{"sku":"brick","order":"o3","quantity":1}','01m8qsr93jz167peq16jqz3s66','','01m8qsr93jz167peq16jqz3s66',1796095091826332,'{"hop":1,"key":"brick","step":"take","early":true}');
INSERT INTO "log" VALUES(50,'saga','','Sale/01m8qsr9g3srgx0qpqr8p9fga1',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o4","sku":"brick","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsr9g3srgx0qpqr8p9fga1','','01m8qsr9g3srgx0qpqr8p9fga1',1796095092227260,'{"hop":1}');
INSERT INTO "log" VALUES(51,'command','stall','Sale/01m8qsr9g3srgx0qpqr8p9fga1',2,'stall.take.v1','{"sku":"brick","order":"o4","quantity":1}','01m8qsr9g3srgx0qpqr8p9fga1','','01m8qsr9g3srgx0qpqr8p9fga1',1796095092227260,'{"hop":1,"key":"brick","step":"take","early":true}');
INSERT INTO "log" VALUES(52,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o5","sku":"tea","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsr9wmfr66e15hqp9f501t','','01m8qsr9wmfr66e15hqp9f501t',1796095092628114,'{"hop":1}');
INSERT INTO "log" VALUES(53,'command','stall','Sale/01m8qsr9wmfr66e15hqp9f501t',2,'stall.take.v1','{"sku":"tea","order":"o5","quantity":1}','01m8qsr9wmfr66e15hqp9f501t','','01m8qsr9wmfr66e15hqp9f501t',1796095092628114,'{"hop":1,"key":"tea","step":"take","early":true}');
INSERT INTO "log" VALUES(54,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',3,'holdfast.saga.answered','{"to":2,"type":"stall.taken.v1","answer":{"sku":"tea","order":"o5","quantity":1}}','01m8qsr9wmfr66e15hqp9f501t','','stall@216',1796095092645935,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(55,'command','till','Sale/01m8qsr9wmfr66e15hqp9f501t',4,'till.charge.v1','{"order":"o5","cents":100,"card":"4111"}','01m8qsr9wmfr66e15hqp9f501t','','stall@216',1796095092645935,'{"hop":1,"key":"o5","step":"charge","early":true}');
INSERT INTO "log" VALUES(56,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',5,'holdfast.saga.answered','{"to":4,"type":"till.charged.v1","answer":{"order":"o5","cents":100}}','01m8qsr9wmfr66e15hqp9f501t','','till@8',1796095092659158,'{"hop":1,"step":"charge"}');
INSERT INTO "log" VALUES(57,'command','counter','Sale/01m8qsr9wmfr66e15hqp9f501t',6,'counter.book.v1','{"order":"o5","cents":100}','01m8qsr9wmfr66e15hqp9f501t','','till@8',1796095092659158,'{"hop":1,"key":"o5","step":"book"}');
INSERT INTO "log" VALUES(58,'event','counter','Order/o5',1,'counter.booked.v1','{"order":"o5","cents":100}','01m8qsr9wmfr66e15hqp9f501t','','counter@57',1796095092661480,'{"hop":1,"answers":"Sale/01m8qsr9wmfr66e15hqp9f501t#6"}');
INSERT INTO "log" VALUES(59,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',7,'holdfast.saga.answered','{"to":6,"type":"counter.booked.v1","answer":{"order":"o5","cents":100}}','01m8qsr9wmfr66e15hqp9f501t','','counter@58',1796095092662424,'{"hop":1,"step":"book"}');
INSERT INTO "log" VALUES(60,'command','stall','Sale/01m8qsr9wmfr66e15hqp9f501t',8,'stall.send.v1','{"order":"o5"}','01m8qsr9wmfr66e15hqp9f501t','','counter@58',1796095092662424,'{"hop":1,"key":"o5","step":"send"}');
INSERT INTO "log" VALUES(61,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',9,'holdfast.saga.answered','{"to":8,"type":"holdfast.rejected","answer":{"code":"no_van","message":"the van is away","facts":{}}}','01m8qsr9wmfr66e15hqp9f501t','','stall@217',1796095092672803,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(62,'saga','','Sale/01m8qsra94722s4yqy0qb7exe6',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o6","sku":"tea","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsra94722s4yqy0qb7exe6','','01m8qsra94722s4yqy0qb7exe6',1796095093028959,'{"hop":1}');
INSERT INTO "log" VALUES(63,'command','stall','Sale/01m8qsra94722s4yqy0qb7exe6',2,'stall.take.v1','{"sku":"tea","order":"o6","quantity":1}','01m8qsra94722s4yqy0qb7exe6','','01m8qsra94722s4yqy0qb7exe6',1796095093028959,'{"hop":1,"key":"tea","step":"take","early":true}');
INSERT INTO "log" VALUES(64,'saga','','Sale/01m8qsra94722s4yqy0qb7exe6',3,'holdfast.saga.answered','{"to":2,"type":"stall.taken.v1","answer":{"sku":"tea","order":"o6","quantity":1}}','01m8qsra94722s4yqy0qb7exe6','','stall@218',1796095093035513,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(65,'command','till','Sale/01m8qsra94722s4yqy0qb7exe6',4,'till.charge.v1','{"order":"o6","cents":100,"card":"4111"}','01m8qsra94722s4yqy0qb7exe6','','stall@218',1796095093035513,'{"hop":1,"key":"o6","step":"charge","early":true}');
INSERT INTO "log" VALUES(66,'command','stall','Sale/01m8qsr9wmfr66e15hqp9f501t',10,'stall.send.v1','{"order":"o5"}','01m8qsr9wmfr66e15hqp9f501t','','stall@217',1796095093173690,'{"hop":1,"key":"o5","step":"send","attempt":1}');
INSERT INTO "log" VALUES(67,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',11,'holdfast.saga.answered','{"to":10,"type":"holdfast.rejected","answer":{"code":"no_van","message":"the van is away","facts":{}}}','01m8qsr9wmfr66e15hqp9f501t','','stall@219',1796095093183147,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(68,'saga','','Sale/01m8qsranpbzy8bzvnvy4rwc3v',1,'holdfast.saga.begun','{"type":"counter.buy.v1","message":{"order":"o7","sku":"plank","quantity":1,"card":"4111"},"shape":"bd5e28da3c1d2849","destination":"","answers":""}','01m8qsranpbzy8bzvnvy4rwc3v','','01m8qsranpbzy8bzvnvy4rwc3v',1796095093430353,'{"hop":1}');
INSERT INTO "log" VALUES(69,'command','stall','Sale/01m8qsranpbzy8bzvnvy4rwc3v',2,'stall.take.v1','{"sku":"plank","order":"o7","quantity":1}','01m8qsranpbzy8bzvnvy4rwc3v','','01m8qsranpbzy8bzvnvy4rwc3v',1796095093430353,'{"hop":1,"key":"plank","step":"take","early":true}');
INSERT INTO "log" VALUES(70,'saga','','Sale/01m8qsranpbzy8bzvnvy4rwc3v',3,'holdfast.saga.answered','{"to":2,"type":"stall.taken.v1","answer":{"sku":"plank","order":"o7","quantity":1}}','01m8qsranpbzy8bzvnvy4rwc3v','','stall@220',1796095093440951,'{"hop":1,"step":"take"}');
INSERT INTO "log" VALUES(71,'command','till','Sale/01m8qsranpbzy8bzvnvy4rwc3v',4,'till.charge.v1','{"order":"o7","cents":100,"card":"4111"}','01m8qsranpbzy8bzvnvy4rwc3v','','stall@220',1796095093440951,'{"hop":1,"key":"o7","step":"charge","early":true}');
INSERT INTO "log" VALUES(72,'saga','','Sale/01m8qsranpbzy8bzvnvy4rwc3v',5,'holdfast.saga.answered','{"to":4,"type":"holdfast.rejected","answer":{"code":"declined","message":"the card was declined","facts":{}}}','01m8qsranpbzy8bzvnvy4rwc3v','','till@14',1796095093463342,'{"hop":1,"step":"charge"}');
INSERT INTO "log" VALUES(73,'saga','','Sale/01m8qsranpbzy8bzvnvy4rwc3v',6,'holdfast.saga.undoing','{"step":"charge","cause":{"code":"declined","message":"the card was declined","facts":{}}}','01m8qsranpbzy8bzvnvy4rwc3v','','till@14',1796095093463342,'{"hop":1,"step":"charge"}');
INSERT INTO "log" VALUES(74,'command','stall','Sale/01m8qsranpbzy8bzvnvy4rwc3v',7,'stall.return.v1','{"sku":"plank","order":"o7"}','01m8qsranpbzy8bzvnvy4rwc3v','','till@14',1796095093463342,'{"hop":1,"key":"plank","step":"take","undoes":2}');
INSERT INTO "log" VALUES(75,'command','stall','Sale/01m8qsr9wmfr66e15hqp9f501t',12,'stall.send.v1','{"order":"o5"}','01m8qsr9wmfr66e15hqp9f501t','','stall@219',1796095094186075,'{"hop":1,"key":"o5","step":"send","attempt":2}');
INSERT INTO "log" VALUES(76,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',13,'holdfast.saga.answered','{"to":12,"type":"holdfast.rejected","answer":{"code":"no_van","message":"the van is away","facts":{}}}','01m8qsr9wmfr66e15hqp9f501t','','stall@221',1796095094203560,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(77,'command','stall','Sale/01m8qsr9wmfr66e15hqp9f501t',14,'stall.send.v1','{"order":"o5"}','01m8qsr9wmfr66e15hqp9f501t','','stall@221',1796095096204415,'{"hop":1,"key":"o5","step":"send","attempt":3}');
INSERT INTO "log" VALUES(78,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',15,'holdfast.saga.answered','{"to":14,"type":"holdfast.rejected","answer":{"code":"no_van","message":"the van is away","facts":{}}}','01m8qsr9wmfr66e15hqp9f501t','','stall@222',1796095096216469,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(79,'command','stall','Sale/01m8qsr9wmfr66e15hqp9f501t',16,'stall.send.v1','{"order":"o5"}','01m8qsr9wmfr66e15hqp9f501t','','stall@222',1796095100217436,'{"hop":1,"key":"o5","step":"send","attempt":4}');
INSERT INTO "log" VALUES(80,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',17,'holdfast.saga.answered','{"to":16,"type":"holdfast.rejected","answer":{"code":"no_van","message":"the van is away","facts":{}}}','01m8qsr9wmfr66e15hqp9f501t','','stall@223',1796095100228662,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(81,'saga','','Sale/01m8qsr9wmfr66e15hqp9f501t',18,'holdfast.saga.stuck','{"step":"send","cause":"send was rejected 5 times: no_van","to":16}','01m8qsr9wmfr66e15hqp9f501t','','stall@223',1796095100228662,'{"hop":1,"step":"send"}');
INSERT INTO "log" VALUES(82,'saga','','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',1,'holdfast.saga.begun','{"type":"counter.swap.v1","message":{"deal":"s2","giver":"ann","taker":"bob","amount":5},"shape":"98783de468763006","destination":"","answers":"","at":1796095100257041}','01m8qsrhb1xf4yp5g8wj59c6b3','','01m8qsrhb1xf4yp5g8wj59c6b3',1796095100257041,'{"hop":1}');
INSERT INTO "log" VALUES(83,'command','bank','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',2,'bank.move.v1','{"account":"ann","amount":-5,"deal":"s2"}','01m8qsrhb1xf4yp5g8wj59c6b3','','01m8qsrhb1xf4yp5g8wj59c6b3',1796095100257041,'{"hop":1,"key":"ann","step":"move","early":true,"stage":"1796095100257041#0"}');
INSERT INTO "log" VALUES(84,'command','bank','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',3,'bank.move.v1','{"account":"bob","amount":5,"deal":"s2"}','01m8qsrhb1xf4yp5g8wj59c6b3','','01m8qsrhb1xf4yp5g8wj59c6b3',1796095100257041,'{"hop":1,"key":"bob","step":"move","index":1,"early":true,"stage":"1796095100257041#0"}');
INSERT INTO "log" VALUES(85,'saga','','Saving/01m8qsrhqjtg8hp65fmmkkxn3f',1,'holdfast.saga.begun','{"type":"counter.save.v1","message":{"deal":"p1","account":"ann"},"shape":"030cf1aa7759352d","destination":"","answers":""}','01m8qsrhqjtg8hp65fmmkkxn3f','','01m8qsrhqjtg8hp65fmmkkxn3f',1796095100658476,'{"hop":1}');
INSERT INTO "log" VALUES(86,'command','bank','Saving/01m8qsrhqjtg8hp65fmmkkxn3f',2,'bank.move.v1','{"account":"ann","amount":1,"deal":"p1"}','01m8qsrhqjtg8hp65fmmkkxn3f','','01m8qsrhqjtg8hp65fmmkkxn3f',1796095100658476,'{"hop":1,"key":"ann","step":"move","early":true}');
INSERT INTO "log" VALUES(87,'saga','','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',4,'holdfast.saga.answered','{"to":2,"type":"bank.moved.v1","answer":{"account":"ann","amount":-5,"deal":"s2"}}','01m8qsrhb1xf4yp5g8wj59c6b3','','bank@12',1796095101279035,'{"hop":1,"step":"move"}');
INSERT INTO "log" VALUES(88,'saga','','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',5,'holdfast.saga.answered','{"to":3,"type":"bank.moved.v1","answer":{"account":"bob","amount":5,"deal":"s2"}}','01m8qsrhb1xf4yp5g8wj59c6b3','','bank@13',1796095101279135,'{"hop":1,"step":"move","index":1}');
INSERT INTO "log" VALUES(89,'event','','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',6,'counter.swapped.v1','{"deal":"s2"}','01m8qsrhb1xf4yp5g8wj59c6b3','','bank@13',1796095101279135,'{"hop":1,"outcome":true}');
INSERT INTO "log" VALUES(90,'command','bank','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3',7,'holdfast.confirm','{"attempt":0}','01m8qsrhb1xf4yp5g8wj59c6b3','','bank@13',1796095101279135,'{"hop":1}');
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('failures','0');
INSERT INTO "meta" VALUES('log','counter');
CREATE TABLE rows (
    kind TEXT NOT NULL, key TEXT NOT NULL, data NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
INSERT INTO "rows" VALUES('request','key-o1','{"tx":"01m8qsr8mst7j5kh32h7568xbj","type":"counter.buy.v1","data":{"order":"o1","sku":"tea","quantity":2,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o2','{"tx":"01m8qsr8nq080eqprabvt8pb6n","type":"counter.buy.v1","data":{"order":"o2","sku":"tea","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o3','{"tx":"01m8qsr93jz167peq16jqz3s66","type":"counter.buy.v1","data":{"order":"o3","sku":"brick","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o4','{"tx":"01m8qsr9g3srgx0qpqr8p9fga1","type":"counter.buy.v1","data":{"order":"o4","sku":"brick","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o5','{"tx":"01m8qsr9wmfr66e15hqp9f501t","type":"counter.buy.v1","data":{"order":"o5","sku":"tea","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o6','{"tx":"01m8qsra94722s4yqy0qb7exe6","type":"counter.buy.v1","data":{"order":"o6","sku":"tea","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o7','{"tx":"01m8qsranpbzy8bzvnvy4rwc3v","type":"counter.buy.v1","data":{"order":"o7","sku":"plank","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-o8','{"tx":"01m8qsr8pwf2eae8b312crt9g7","type":"counter.buy.v1","data":{"order":"o8","sku":"glass","quantity":1,"card":"4111"}}');
INSERT INTO "rows" VALUES('request','key-p0','{"tx":"01m8qsr8pfkavngmej8wkye9n8","type":"counter.save.v1","data":{"deal":"p0","account":"ann"}}');
INSERT INTO "rows" VALUES('request','key-p1','{"tx":"01m8qsrhqjtg8hp65fmmkkxn3f","type":"counter.save.v1","data":{"deal":"p1","account":"ann"}}');
INSERT INTO "rows" VALUES('request','key-s0','{"tx":"01m8qsr8pa12hyj9fn3v6qpxvf","type":"counter.swap.v1","data":{"deal":"s0","giver":"ann","taker":"bob","amount":300}}');
INSERT INTO "rows" VALUES('request','key-s1','{"tx":"01m8qsr8p6bktn6wvp28snkpnp","type":"counter.swap.v1","data":{"deal":"s1","giver":"ann","taker":"bob","amount":30}}');
INSERT INTO "rows" VALUES('request','key-s2','{"tx":"01m8qsrhb1xf4yp5g8wj59c6b3","type":"counter.swap.v1","data":{"deal":"s2","giver":"ann","taker":"bob","amount":5}}');
INSERT INTO "rows" VALUES('saga','Sale/01m8qsr93jz167peq16jqz3s66','{"status":"running","tx":"01m8qsr93jz167peq16jqz3s66","at":1796095091826332}');
INSERT INTO "rows" VALUES('saga','Sale/01m8qsr9g3srgx0qpqr8p9fga1','{"status":"running","tx":"01m8qsr9g3srgx0qpqr8p9fga1","at":1796095092227260}');
INSERT INTO "rows" VALUES('saga','Sale/01m8qsr9wmfr66e15hqp9f501t','{"status":"stuck","tx":"01m8qsr9wmfr66e15hqp9f501t","at":1796095100228662,"step":"send","cause":"send was rejected 5 times: no_van"}');
INSERT INTO "rows" VALUES('saga','Sale/01m8qsra94722s4yqy0qb7exe6','{"status":"running","tx":"01m8qsra94722s4yqy0qb7exe6","at":1796095093028959}');
INSERT INTO "rows" VALUES('saga','Sale/01m8qsranpbzy8bzvnvy4rwc3v','{"status":"undoing","tx":"01m8qsranpbzy8bzvnvy4rwc3v","at":1796095093463342,"cause":"declined"}');
INSERT INTO "rows" VALUES('saga','Saving/01m8qsrhqjtg8hp65fmmkkxn3f','{"status":"running","tx":"01m8qsrhqjtg8hp65fmmkkxn3f","at":1796095100658476}');
INSERT INTO "rows" VALUES('saga','Swapping/01m8qsrhb1xf4yp5g8wj59c6b3','{"status":"committed","tx":"01m8qsrhb1xf4yp5g8wj59c6b3","at":1796095101279135}');
INSERT INTO "rows" VALUES('service','acked:bank','86');
INSERT INTO "rows" VALUES('service','acked:stall','79');
INSERT INTO "rows" VALUES('service','acked:till','71');
INSERT INTO "rows" VALUES('service','view:Page','{"generation":1,"fingerprint":"6dc32987370d3e1d:counter.booked.v1,stall.sent.v1,till.charged.v1"}');
INSERT INTO "rows" VALUES('timer','2796095093035513/Sale/01m8qsra94722s4yqy0qb7exe6#deadline:charge','{"tx":"01m8qsra94722s4yqy0qb7exe6","cause":"stall@218","hop":1}');
INSERT INTO "rows" VALUES('view','Page@1/o1','{"state":{"cents":200,"sent":true,"seen":["charged","booked","sent"]}}');
INSERT INTO "rows" VALUES('view','Page@1/o5','{"state":{"cents":100,"sent":false,"seen":["charged","booked"]}}');
CREATE UNIQUE INDEX log_stream ON log (stream, version) WHERE stream <> '';
CREATE INDEX log_destination ON log (destination, position) WHERE destination <> '';
CREATE INDEX log_tx ON log (tx);
CREATE INDEX log_correlation ON log (correlation) WHERE correlation <> '';
COMMIT;
