"""The engine of this process. It stays for later work on the same weights."""

from cluster.engine.process import Engine, EngineCommand, log_file

_running: list[tuple[str, Engine]] = []


def engine_for(how: EngineCommand, path: str, revision: str = "") -> Engine:
    """The engine of this process that serves these weights. Another one is ended first."""
    identity = how.identity(path, revision)
    for known, engine in _running:
        if known == identity and engine.is_running:
            return engine
    end_engine()
    engine = Engine(how, path, log_file(), revision)
    _running.append((identity, engine))
    return engine


def end_engine() -> None:
    """End the engine of this process, if it has one, and wait until it is gone."""
    while _running:
        _running.pop()[1].close()
