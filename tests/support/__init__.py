"""What several tests need: systems to test with, judges, checkers, and processes and servers that can be hurt.

`systems/` holds small systems of services, each in one module, with what is asked of them. `scenarios` is what the
fault explorer plays with them. `http_services` serves over real HTTP; `servers` has database servers, and `wire` the
connection to one, cut at a chosen byte. `numbered_batches`, `crash_in_commit` and `power_cut` are for stores that lose
their process or their power, `isolation_checker` for what clients saw of staged commits. `soak/` has processes under
every fault at once, and the judges of the files that they leave. `pages` reads the docs.

Tests import it as `support.x`. Nothing here imports a test.
"""
