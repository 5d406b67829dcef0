"""Configuration: what wins, what is refused and in which words, and that secrets stay secret."""

from pathlib import Path

import pytest

from holdfast.config import ServiceSettings, Settings, is_loopback, load, replace
from holdfast.errors import ConfigInvalid

SECRET = "sixteen-or-more-characters"


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "holdfast.toml"
    path.write_text(text, "utf-8")
    return path


def test_later_sources_win(tmp_path: Path) -> None:
    """A flag wins over a variable, a variable over the file, the file over the default; a flag not given is none."""
    path = file(tmp_path, 'store = "memory:"\nport = 1\nlog_level = "error"\n')
    settings = load(path, {"HOLDFAST_PORT": "2", "HOLDFAST_LOG_LEVEL": "debug"}, {"port": 3, "store": None})
    assert (settings.store, settings.port, settings.log_level, settings.host) == ("memory:", 3, "debug", "127.0.0.1")


def test_services_have_settings_of_their_own(tmp_path: Path) -> None:
    """[services.NAME] overrides store and port, and names the URL; HOLDFAST_SERVICES is the same as JSON."""
    path = file(tmp_path, '[services.stock]\nurl = "http://127.0.0.1:8001"\nstore = "memory:"\n')
    settings = load(path, {})
    assert settings.store_of("stock") == "memory:" and settings.store_of("order") == Settings().store
    assert settings.urls() == {"stock": "http://127.0.0.1:8001"}
    assert load(path, {"HOLDFAST_SERVICES": '{"order": {"port": 9}}'}).services["order"].port == 9


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("stor = 'memory:'", {}, "holdfast.toml: stor is no setting; did you mean store?"),
        ("[services.a]\nulr = 'x'", {}, "services.a.ulr is no setting; did you mean services.a.url?"),
        ("", {"HOLDFAST_SECRTE": "x"}, "HOLDFAST_SECRTE is no setting; did you mean HOLDFAST_SECRET?"),
        ("port = 'x'", {}, "holdfast.toml: port: expected `int`, got `str`"),
        ("[services.a]\nport = 'x'", {}, "holdfast.toml: services.a.port: expected `int`, got `str`"),
        ("services = 3", {}, "holdfast.toml: services: expected `object`, got `int`"),
        ("[services]\na = 3", {}, "holdfast.toml: services.a: expected `object`, got `int`"),
        ("", {"HOLDFAST_PORT": "x"}, "HOLDFAST_PORT: 'x' is not a whole number"),
        ("", {"HOLDFAST_SERVICES": "[1]"}, "HOLDFAST_SERVICES must be a JSON object"),
        ("log_level = 'loud'", {}, "log_level: takes debug, info, warning, error"),
        ("port = 70000", {}, "port: 70000 is no port"),
        ("snapshot_every = 0", {}, "snapshot_every: must be 1 or more"),
        ("[services.a]\nurl = 'ftp://x'", {}, "services.a.url: 'ftp://x' must begin with http://"),
        ("secret = 'short'", {}, "secret: takes 16 characters or more"),
        ("secret_file = 'absent'", {}, "secret_file: cannot read 'absent'"),
        ("host = '0.0.0.0'", {}, "host: '0.0.0.0' is not loopback, and there is no secret"),
        ("[services.a]\nhost = '10.0.0.1'", {}, "services.a.host: '10.0.0.1' is not loopback"),
        ("= 3", {}, "holdfast.toml is not TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, environ: dict[str, str], said: str) -> None:
    """Every mistake is refused before anything starts, in one sentence that names the setting (G10)."""
    with pytest.raises(ConfigInvalid) as refused:
        load(file(tmp_path, text), environ)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_named_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name the file is optional; with one it is not."""
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Settings()
    with pytest.raises(ConfigInvalid, match="cannot read"):
        load(tmp_path / "other.toml", {})


def test_off_loopback_needs_a_secret() -> None:
    """With a secret every address may be listened on; without one loopback alone."""
    assert load(None, {"HOLDFAST_HOST": "0.0.0.0", "HOLDFAST_SECRET": SECRET}).host == "0.0.0.0"
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.1.2.3", "example.org", "")))
    with pytest.raises(ConfigInvalid, match="not loopback"):
        replace(Settings(), host="0.0.0.0")


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """A secret from a file is taken, and stands in no repr and in no refusal."""
    kept = tmp_path / "secret"
    kept.write_text(SECRET + "\n", "utf-8")
    settings = load(None, {"HOLDFAST_SECRET_FILE": str(kept), "HOLDFAST_OPERATOR_TOKEN": "token-for-operators"})
    assert settings.secret == SECRET
    stores = {"order": ServiceSettings(store="mysql://u:pa%3Ass@127.0.0.1/o")}
    given = Settings(store="postgresql://u:w0rd@127.0.0.1/s", services=stores)
    assert "w0rd" not in repr(given) and "pa%3Ass" not in repr(given) and "u:***@127.0.0.1/o" in repr(given)
    assert {"w0rd", "pa%3Ass", "pa:ss"} <= set(given.passwords())
    assert SECRET not in repr(settings) and "token-for-operators" not in repr(settings) and SECRET not in f"{settings}"
    with pytest.raises(ConfigInvalid) as refused:
        replace(settings, port=-1)
    assert SECRET not in str(refused.value)
