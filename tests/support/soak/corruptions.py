"""What is done by hand to the files that a soak leaves, so that the judge is seen to find it.

Each claim of `judge`, `judge_shop` and `judge_trades` has one change that breaks it: (service, SQL). Most break
others too; two at once may hide each other, so each is made on a copy of its own.
"""

LAST = "WHERE position = (SELECT max(position) FROM log WHERE {})"
FIRST = "WHERE position = (SELECT min(position) FROM log WHERE {})"
DOUBLED = """
INSERT INTO log SELECT position + 100000000, kind, destination, stream, version + 100000000, type, data, tx,
    correlation, cause, at, headers FROM log WHERE position = 3
"""


def of_any(coordinator: str, other: str) -> dict[str, tuple[str, str]]:
    """Changes that are found in any system; the other service has events that were asked for from outside."""
    return {
        "position": (other, "DELETE FROM log WHERE position = (SELECT max(position) - 7 FROM log)"),
        "version": (other, "UPDATE log SET version = version + 1 " + LAST.format("version > 1")),
        "command": (other, "DELETE FROM log " + LAST.format("destination <> ''")),
        "answer": (coordinator, "DELETE FROM log " + FIRST.format("type LIKE '%answered'")),
        "received": (coordinator, "UPDATE cursors SET position = position - 900 WHERE name LIKE 'exchange:%'"),
        "trail": (other, "UPDATE log SET tx = 'another' " + LAST.format("destination <> ''")),
        "left": (other, "INSERT INTO rows VALUES ('stage', 'Account/a1#000000000001', '{}')"),
        "stuck": (coordinator, "UPDATE log SET type = 'holdfast.saga.stuck' " + FIRST.format("kind = 'saga'")),
        "asked": (coordinator, "DELETE FROM rows WHERE kind = 'request' AND key LIKE '%9'"),
        "outcome": (coordinator, "UPDATE log SET headers = '{}' " + FIRST.format("headers LIKE '%outcome%'")),
        "acknowledged": (
            coordinator,
            "UPDATE log SET type = 'holdfast.rejected' " + LAST.format("kind = 'event' AND headers LIKE '%outcome%'"),
        ),
        "once": (other, DOUBLED),
    }


OF_SHOP = of_any("order", "stock") | {
    "begun": ("order", "DELETE FROM log " + FIRST.format("type = 'holdfast.saga.begun'")),
    "whole": ("payment", "UPDATE log SET type = 'payment.refunded.v1' WHERE position = 5"),
    "goods": ("stock", "DELETE FROM log " + FIRST.format("type = 'stock.released.v1'")),
    "money": (
        "payment",
        "UPDATE log SET data = json_set(data, '$.amount_cents', 1) " + FIRST.format("type = 'payment.charged.v1'"),
    ),
    "shelf": (
        "stock",
        "UPDATE log SET data = json_set(data, '$.quantity', 7) " + FIRST.format("data LIKE '%\"rare\"%'"),
    ),
    "view": ("order", "DELETE FROM rows WHERE kind = 'view' AND key LIKE '%7'"),
}

OF_TRADES = of_any("desk", "bank") | {
    "begun": ("desk", "DELETE FROM log " + FIRST.format("type = 'holdfast.saga.begun'")),
    "ended": ("desk", "UPDATE log SET type = 'desk.other.v1' " + FIRST.format("type = 'desk.traded.v1'")),
    "whole": ("shop", "DELETE FROM log " + FIRST.format("kind = 'event'")),
    "nothing": (
        "desk",
        "UPDATE log SET type = 'holdfast.rejected' " + FIRST.format("type = 'desk.traded.v1'"),
    ),
    "decision": ("desk", "UPDATE log SET type = 'holdfast.cancel' " + FIRST.format("type = 'holdfast.confirm'")),
    "carried": (
        "bank",
        "UPDATE log SET data = json_set(data, '$.commit', json('false')) "
        + LAST.format("type = 'holdfast.done' AND data ->> 'commit'"),
    ),
    "invisible": (
        "depot",
        "UPDATE log SET position = -position, version = version + 100000 " + LAST.format("kind = 'event'"),
    ),
    "settled": ("desk", "DELETE FROM log " + FIRST.format("type = 'holdfast.saga.settled'")),
    "balance": ("bank", "UPDATE log SET data = json_set(data, '$.amount', -100000) " + FIRST.format("kind = 'event'")),
    "plain": (
        "depot",
        "UPDATE log SET data = json_set(data, '$.deal', ''), tx = 'nobody' "
        + FIRST.format("kind = 'event' AND data ->> 'deal' <> ''"),
    ),
}
