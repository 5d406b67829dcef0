"""A program that runs the Python blocks of one page: it reads them from its input, as JSON of (page, [(line, code)]).

It is a file of its own and imports nothing of the tests, so that a page has nothing on its path but what readers have.
A block that fails ends it with a traceback.
"""

import ast
import asyncio
import inspect
import json
import sys
import types


def run_blocks(page: str, blocks: list[tuple[int, str]]) -> None:
    """Run a page's blocks in one namespace and one event loop. Line numbers in a traceback are those of the page."""
    module = types.ModuleType("page")
    # Type hints of classes are looked up in the module they say they are from.
    sys.modules["page"] = module
    with asyncio.Runner() as runner:
        for line, code in blocks:
            compiled = compile("\n" * (line - 1) + code, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(compiled, vars(module))
            if compiled.co_flags & inspect.CO_COROUTINE:
                runner.run(result)


if __name__ == "__main__":
    run_blocks(*json.loads(sys.stdin.read()))
