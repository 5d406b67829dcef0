"""The judge of the shop's files after a soak: every order is bought everywhere or undone everywhere.

Claims of `judge` hold for the logs; these are about orders, goods, money and what the view shows. SQL alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.soak.judge import Verdict, judge, told_rows

SERVICES = ("order", "stock", "payment", "shipping")

MADE = """
CREATE TEMP TABLE orders AS SELECT data ->> '$.message.order_id' AS id, stream, data -> '$.message.items' AS items, (
        SELECT e.type FROM ends AS e WHERE e.stream = l.stream AND e.service = 'order') AS ended
    FROM log AS l WHERE service = 'order' AND type = 'holdfast.saga.begun';
CREATE INDEX temp.order_id ON orders (id);
CREATE TEMP TABLE events AS SELECT service, position, type, data ->> 'order_id' AS id, data ->> 'sku' AS sku,
        ifnull(data ->> 'quantity', 0) AS quantity, ifnull(data ->> 'amount_cents', 0) AS cents
    FROM log WHERE kind = 'event' AND type <> 'order.checked_out.v1';
CREATE TEMP TABLE sums AS SELECT id, sum(type = 'order.placed.v1') AS placed,
        sum(type = 'order.confirmed.v1') AS confirmed, sum(type = 'order.cancelled.v1') AS cancelled,
        sum(type = 'payment.charged.v1') AS charged,
        sum(type = 'payment.refunded.v1') AS refunded, sum(type = 'shipping.shipped.v1') AS shipped,
        sum(type = 'stock.reserved.v1') AS reserved, sum(type = 'stock.released.v1') AS released,
        sum(iif(type = 'payment.charged.v1', cents, iif(type = 'payment.refunded.v1', -cents, 0))) AS paid
    FROM events WHERE id IS NOT NULL GROUP BY id;
CREATE INDEX temp.sum_id ON sums (id);
CREATE TEMP TABLE lines AS SELECT o.id, i.value ->> 'sku' AS sku, i.value ->> 'quantity' AS quantity,
        (i.value ->> 'quantity') * (i.value ->> 'price_cents') AS cents, o.ended = 'order.checked_out.v1' AS bought
    FROM orders AS o, json_each(o.items) AS i;
CREATE INDEX temp.line_id ON lines (id);
CREATE TEMP TABLE shown AS SELECT substr(key, instr(key, '/') + 1) AS id, data ->> '$.state.status' AS status
    FROM small WHERE service = 'order' AND kind = 'view';
CREATE INDEX temp.shown_id ON shown (id);
"""

CLAIMS = {
    "begun": """
        SELECT a.key || ' was begun ' || count(o.id) || ' times', count(o.id) = 1
        FROM asked AS a LEFT JOIN orders AS o ON o.id = a.key WHERE a.service = 'order' GROUP BY a.key
        UNION ALL SELECT o.id || ' was never asked for', a.key IS NOT NULL
        FROM orders AS o LEFT JOIN asked AS a ON a.key = o.id AND a.service = 'order'
        """,
    "whole": """
        SELECT o.id || ' ended with ' || ifnull(o.ended, 'nothing') || ': placed ' || placed
                || ', reserved ' || reserved || ', released ' || released
                || ', charged ' || charged || ', refunded ' || refunded || ', confirmed '
                || confirmed || ', shipped ' || shipped || ', cancelled ' || cancelled, ifnull(CASE o.ended
            WHEN 'order.checked_out.v1' THEN (placed, confirmed, charged, shipped, cancelled, refunded, released)
                = (1, 1, 1, 1, 0, 0, 0) AND reserved = json_array_length(o.items)
            WHEN 'holdfast.rejected' THEN (placed, confirmed, shipped, cancelled) = (1, 0, 0, 1)
                AND charged = refunded AND reserved = released END, 0)
        FROM orders AS o LEFT JOIN sums AS s ON s.id = o.id
        UNION ALL SELECT s.id || ' has events and was never begun', o.id IS NOT NULL
        FROM sums AS s LEFT JOIN orders AS o ON o.id = s.id
        """,
    "goods": """
        SELECT id || ' holds ' || sum(units) || ' of ' || sku || ' too many', sum(units) = 0 FROM (
            SELECT id, sku, -quantity AS units FROM lines WHERE bought
            UNION ALL SELECT id, sku, iif(type = 'stock.reserved.v1', quantity, -quantity) FROM events
            WHERE type IN ('stock.reserved.v1', 'stock.released.v1')
        ) GROUP BY id, sku
        """,
    "money": """
        SELECT o.id || ' has paid ' || s.paid || ' of ' || sum(l.cents), s.paid = sum(l.cents) * l.bought
        FROM orders AS o JOIN sums AS s ON s.id = o.id JOIN lines AS l ON l.id = o.id GROUP BY o.id
        """,
    "shelf": """
        SELECT 'stock@' || position || ' leaves ' || units || ' of ' || sku, units >= 0 FROM (
            SELECT position, sku, sum(iif(type = 'stock.reserved.v1', -quantity, quantity))
                OVER (PARTITION BY sku ORDER BY position) AS units FROM events WHERE service = 'stock')
        """,
    "view": """
        SELECT o.id || ' is shown as ' || ifnull(v.status, 'nothing') || ', it ended with ' || o.ended,
            ifnull(v.status = iif(o.ended = 'order.checked_out.v1', 'shipped', 'cancelled'), 0)
        FROM orders AS o LEFT JOIN shown AS v ON v.id = o.id
        """,
}

FIGURES = """
SELECT 'sagas', count(*) FROM orders
UNION ALL SELECT 'undone', count(*) FROM orders WHERE ended = 'holdfast.rejected'
UNION ALL SELECT 'refunded', sum(refunded) FROM sums
UNION ALL SELECT 'called off', count(*) FROM log WHERE type = 'holdfast.call_off'
UNION ALL SELECT 'records', count(*) FROM log
"""


def judge_shop(folder: Path, asked: Mapping[str, Any], told: Mapping[str, Any]) -> Verdict:
    """Judge the four files in a folder. `asked` and `told`: by key, as the soak knows them."""
    return judge(folder, SERVICES, told_rows(asked, told), made=MADE, claims=CLAIMS, figures=FIGURES)
