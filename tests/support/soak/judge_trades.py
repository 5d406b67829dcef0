"""The judge of the trades' files after a soak: a staged transaction is there in every service, or in none.

Claims of `judge` hold for the logs; these are about decisions, what each service shows of them and since when, and
that no account or stock was ever below zero. SQL alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.soak.judge import Verdict, judge, told_rows

SERVICES = ("desk", "bank", "shop", "depot")

MADE = """
CREATE TEMP TABLE trades AS SELECT l.data ->> '$.message.deal' AS deal, l.tx, l.stream,
        l.data -> '$.message' AS message,
        (SELECT e.type FROM ends AS e WHERE e.stream = l.stream AND e.service = 'desk') AS ended,
        (SELECT e.position FROM ends AS e WHERE e.stream = l.stream AND e.service = 'desk') AS at
    FROM log AS l WHERE service = 'desk' AND type = 'holdfast.saga.begun';
CREATE INDEX temp.trade_deal ON trades (deal);
CREATE INDEX temp.trade_tx ON trades (tx);
CREATE TEMP TABLE events AS SELECT service, position, tx, data ->> 'deal' AS deal, type,
        ifnull(data ->> 'account', data ->> 'sku') AS key,
        ifnull(ifnull(data ->> 'amount', data ->> 'quantity'), 1) AS amount
    FROM log WHERE kind = 'event' AND service <> 'desk';
CREATE INDEX temp.event_deal ON events (deal);
-- What each trade asks of whom.
CREATE TEMP TABLE parts AS
    SELECT t.deal, t.ended, 'bank' AS service, m.value ->> 0 AS key, m.value ->> 1 AS amount
    FROM trades AS t, json_each(t.message, '$.moves') AS m
    UNION ALL SELECT t.deal, t.ended, 'depot', m.value ->> 0, m.value ->> 1
    FROM trades AS t, json_each(t.message, '$.takes') AS m
    UNION ALL SELECT t.deal, t.ended, 'shop', m.value, 1 FROM trades AS t, json_each(t.message, '$.lists') AS m;
-- Every decision as it was told (by the desk) and as it was carried out (by the others).
CREATE TEMP TABLE told AS SELECT 'desk@' || position AS id, stream, tx, destination, data ->> 'attempt' AS attempt,
        type = 'holdfast.confirm' AS yes
    FROM log WHERE service = 'desk' AND type IN ('holdfast.confirm', 'holdfast.cancel');
CREATE INDEX temp.told_stream ON told (stream, attempt);
CREATE INDEX temp.told_id ON told (id);
CREATE TEMP TABLE done AS SELECT service, position, tx, cause, data ->> 'stage' AS stage, data ->> 'commit' AS yes
    FROM log WHERE type = 'holdfast.done';
CREATE INDEX temp.done_cause ON done (cause);
CREATE INDEX temp.done_tx ON done (tx, service);
"""

CLAIMS = {
    "begun": """
        SELECT a.key || ' was begun ' || count(t.deal) || ' times', count(t.deal) = 1
        FROM asked AS a LEFT JOIN trades AS t ON t.deal = a.key WHERE a.service = 'desk' GROUP BY a.key
        UNION ALL SELECT t.deal || ' was never asked for', a.key IS NOT NULL
        FROM trades AS t LEFT JOIN asked AS a ON a.key = t.deal AND a.service = 'desk'
        """,
    "ended": """
        SELECT deal || ' ended with ' || ifnull(ended, 'nothing'),
            ifnull(ended IN ('desk.traded.v1', 'holdfast.rejected'), 0) FROM trades
        """,
    # Committed: each part once in the log of its service; cancelled: nothing anywhere.
    "whole": """
        SELECT deal || ': ' || service || ' shows ' || sum(count) || ' times too often ' || amount || ' of ' || key,
            sum(count) = 0
        FROM (SELECT deal, service, key, amount, -1 AS count FROM parts WHERE ended = 'desk.traded.v1'
            UNION ALL SELECT deal, service, key, amount, 1 FROM events WHERE deal <> '')
        GROUP BY deal, service, key, amount
        """,
    "nothing": """
        SELECT t.deal || ' was cancelled and ' || count(e.deal) || ' events show it', count(e.deal) = 0
        FROM trades AS t LEFT JOIN events AS e ON e.deal = t.deal WHERE t.ended = 'holdfast.rejected' GROUP BY t.deal
        """,
    "decision": """
        SELECT stream || ' attempt ' || attempt || ' was told ' || count(*) || ' times, ' || count(DISTINCT yes)
                || ' ways', count(*) = count(DISTINCT destination) AND count(DISTINCT yes) = 1
        FROM told GROUP BY stream, attempt
        UNION ALL SELECT t.deal || ' ended with ' || t.ended || ', confirmed ' || count(d.stream) || ' times',
            (t.ended = 'desk.traded.v1') = (count(d.stream) > 0)
        FROM trades AS t LEFT JOIN told AS d ON d.stream = t.stream AND d.yes GROUP BY t.stream
        """,
    "carried": """
        SELECT t.id || ' was carried out ' || count(d.cause) || ' times by ' || t.destination,
            count(d.cause) = 1 AND min(d.yes) = t.yes AND min(d.service) = t.destination
                AND min(d.stage) = 'desk:' || t.stream || '#' || t.attempt
        FROM told AS t LEFT JOIN done AS d ON d.cause = t.id GROUP BY t.id
        UNION ALL SELECT service || '@' || d.position || ' carries out what nobody told', t.id IS NOT NULL
        FROM done AS d LEFT JOIN told AS t ON t.id = d.cause
        """,
    # Shown in the commit that carries out the confirm, which was told after the decision was recorded.
    "invisible": """
        SELECT e.service || '@' || e.position || ' shows ' || e.deal || ' before its commit',
            ifnull(d.position > e.position AND CAST(substr(d.cause, 6) AS INTEGER) > t.at AND t.at > 0
                AND d.position - e.position <= 4, 0)
        FROM events AS e LEFT JOIN trades AS t ON t.tx = e.tx AND t.ended = 'desk.traded.v1'
            LEFT JOIN done AS d ON d.tx = e.tx AND d.service = e.service AND d.yes
        WHERE e.deal <> ''
        """,
    "settled": """
        SELECT t.deal || ' was settled ' || count(l.position) || ' times', count(l.position) = 1
        FROM trades AS t LEFT JOIN log AS l ON l.service = 'desk' AND l.stream = t.stream
            AND l.type = 'holdfast.saga.settled' GROUP BY t.stream
        """,
    "balance": """
        SELECT service || '@' || position || ' leaves ' || left || ' in ' || key, left >= 0 FROM (
            SELECT service, position, key, CASE service WHEN 'bank' THEN 0 ELSE 100 END  -- a stock begins with 100
                + sum(iif(service = 'bank', amount, -amount)) OVER (PARTITION BY service, key ORDER BY position) AS left
            FROM events WHERE service IN ('bank', 'depot'))
        """,
    "plain": """
        SELECT e.service || '@' || e.position || ' is of no trade, and nobody asked for it', r.tx IS NOT NULL
        FROM events AS e LEFT JOIN requests AS r ON r.tx = e.tx AND r.service = e.service WHERE e.deal = ''
        """,
}

FIGURES = """
SELECT 'staged', count(*) FROM trades
UNION ALL SELECT 'committed', count(*) FROM trades WHERE ended = 'desk.traded.v1'
UNION ALL SELECT 'cancelled', count(*) FROM trades WHERE ended = 'holdfast.rejected'
UNION ALL SELECT 'of these by deadline', count(*) FROM ends
    WHERE type = 'holdfast.rejected' AND data ->> 'code' = 'deadline'
UNION ALL SELECT 'gave way', count(*) FROM log WHERE type = 'holdfast.saga.again'
UNION ALL SELECT 'plain', count(*) FROM events WHERE deal = ''
UNION ALL SELECT 'records', count(*) FROM log
"""


def judge_trades(folder: Path, asked: Mapping[str, Any], told: Mapping[str, Any]) -> Verdict:
    """Judge the four files in a folder. `asked` and `told`: by key, as the soak knows them."""
    return judge(folder, SERVICES, told_rows(asked, told), made=MADE, claims=CLAIMS, figures=FIGURES)
