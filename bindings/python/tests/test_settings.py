"""Settings: where they come from, and who goes first."""

from __future__ import annotations

import argparse
import os
import re

import pytest
from conftest import HERE, Process
from wireloom import foreign
from wireloom.config import Config
from wireloom.settings import from_settings, load, parser


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch, tmp_path):
    """No file of the folder, no variable of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)


def test_every_name_of_a_flag_is_a_variable_and_a_name_in_a_file(monkeypatch, tmp_path):
    (tmp_path / "wireloom.toml").write_text('origin = ["https://a.test"]\nssl-certfile = "file"\nssl_keyfile = "key"\n')
    config = load(["plain:app"])
    assert (config.origins, config.certfile, config.keyfile) == (["https://a.test"], "file", "key")
    monkeypatch.setenv("WIRELOOM_SSL_CERTFILE", "variable")
    monkeypatch.setenv("WIRELOOM_SSL_CA_CERTS", "ca")
    monkeypatch.setenv("WIRELOOM_SSL_CERT_REQS", "1")
    monkeypatch.setenv("WIRELOOM_ORIGIN", "https://b.test, https://c.test")
    monkeypatch.setenv("WIRELOOM_TIMEOUT_KEEP_ALIVE", "")
    config = load(["plain:app", "--origin", "https://d.test"])
    assert (config.certfile, config.client_ca, config.client_certs) == ("variable", "ca", "optional")
    assert (config.origins, config.keep_alive) == (["https://d.test"], 30.0)
    # Its own name goes first.
    monkeypatch.setenv("WIRELOOM_CERTFILE", "own")
    monkeypatch.setenv("WIRELOOM_APP", "other:app")
    assert (load([]).certfile, load([]).app) == ("own", "other:app")


def test_variables_that_other_servers_read(monkeypatch, tmp_path):
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert (load(["plain:app"]).workers, load(["plain:app"]).forwarded_allow_ips) == (3, "*")
    assert load(["plain:app", "--reload"]).workers == 1
    assert load(["plain:app", "--workers", "2"]).workers == 2
    (tmp_path / "wireloom.toml").write_text("workers = 4\n")
    assert load(["plain:app"]).workers == 4
    monkeypatch.setenv("WIRELOOM_WORKERS", "5")
    assert load(["plain:app"]).workers == 5
    assert from_settings("plain:app", {}).workers == 1
    monkeypatch.delenv("WIRELOOM_WORKERS")
    (tmp_path / "wireloom.toml").unlink()
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(SystemExit, match="WEB_CONCURRENCY: 'many' is no value for workers"):
        load(["plain:app"])


def test_unknown_names(monkeypatch, tmp_path, serve):
    server = serve("plain:app", tls=False, env={"WIRELOOM_SSL_CA_CERT": "x", "WIRELOOM_PORT_80_TCP": "y"})
    assert [line for line in server.lines if "warning" in line] == [
        f"wireloom-asgi: warning: {name} is no setting, and ignored"
        for name in ("WIRELOOM_PORT_80_TCP", "WIRELOOM_SSL_CA_CERT")
    ]
    file = tmp_path / "settings.toml"
    file.write_text("nonsense = 1\n")
    process = Process(["plain:app", "--config", str(file)], cwd=HERE / "apps")
    assert process.ended() == 1
    process.wait_for("there is no setting named nonsense")


def test_settings_of_a_caller():
    config = from_settings(
        "app",
        {
            "host": "::1",
            "ssl_certfile": HERE / "a.pem",
            "keyfile": "b.pem",
            "headers": [("x-a", "1,2"), "x-b: 3"],
            "header": None,
            "timeout_keep_alive": 5,
            "http2": False,
        },
    )
    assert config == Config(
        app="app",
        host=["::1"],
        certfile=str(HERE / "a.pem"),
        keyfile="b.pem",
        headers=["x-a:1,2", "x-b: 3"],
        keep_alive=5.0,
        http2=False,
    )
    assert from_settings("app", {"uds_permissions": 0o660}).uds_permissions == "660"
    assert from_settings("app", {"header": "x: 1, 2"}).headers == ["x: 1, 2"]
    with pytest.raises(TypeError, match="nonsense"):
        from_settings("app", {"nonsense": 1})
    with pytest.raises(ValueError, match="port: 'x' is no value"):
        from_settings("app", {"port": "x"})


def test_a_file_of_variables(monkeypatch, tmp_path):
    file = tmp_path / "variables"
    file.write_text(
        "# comment\n"
        "A=one # comment\n"
        "export B = 'two # no comment' # comment\n"
        'C="a \\"b\\"\\n\\\\c"\n'
        "D=\n"
        "E=x#y=$A\n"
        "HELD=file\n"
        "WIRELOOM_ROOT_PATH=/base\n"
    )
    names = ["A", "B", "C", "D", "E", "WIRELOOM_ROOT_PATH"]
    for name in [*names, "HELD"]:
        # So that they are put back.
        monkeypatch.setenv(name, "environment")
    for name in names:
        monkeypatch.delenv(name)
    assert load(["plain:app", "--env-file", str(file)]).root_path == "/base"
    found = [os.environ[name] for name in [*names[:5], "HELD"]]
    assert found == ["one", "two # no comment", 'a "b"\n\\c', "", "x#y=$A", "environment"]
    file.write_text("A=1\nnonsense\n")
    with pytest.raises(ValueError, match=r"--env-file .*: line 2 is not NAME=value"):
        from_settings("app", {"env_file": file})
    with pytest.raises(SystemExit, match=r"--env-file missing: .*No such file"):
        load(["plain:app", "--env-file", "missing"])


def test_as_many_workers_as_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert load(["plain:app", "--workers", "0"]).workers == 3
    assert load(["plain:app", "--workers", "0", "--reload"]).workers == 1
    monkeypatch.setenv("WEB_CONCURRENCY", "0")
    assert load(["plain:app"]).workers == 3
    with pytest.raises(SystemExit):
        load(["plain:app", "--workers", "201"])


def test_flags_of_other_servers(capsys):
    arguments = [
        "--http",
        "h11",
        "plain:app",
        "--ws",
        "auto",
        "--interface",
        "asgi3",
        "--no-server-header",
        "--port",
        "1",
    ]
    config = load([*arguments, "--use-colors"])
    assert (config.app, config.port) == ("plain:app", 1)
    notes = capsys.readouterr().err.splitlines()
    assert [note.split()[2] for note in notes] == ["--http", "--ws", "--no-server-header", "--use-colors"]
    assert notes[1] == "wireloom-asgi: note: --ws is ignored: WebSocket has one implementation here"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-w", "4"], "-w is not a flag here; use --workers"),
        (["--bind", "0.0.0.0:80"], "use --host and --port, --uds or --fd"),
        (["--max-requests=5"], "use --limit-max-requests"),
        (["--interface", "wsgi"], "a2wsgi.WSGIMiddleware"),
        (["--interface", "rsgi"], "use ASGI 3"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_flags_that_have_another_name_here(arguments, says, capsys):
    with pytest.raises(SystemExit):
        load(["plain:app", *arguments])
    assert says in capsys.readouterr().err


def test_settings_that_have_another_name_here():
    with pytest.raises(TypeError, match="no setting named 'max_requests'; use --limit-max-requests"):
        from_settings("app", {"max_requests": 1})
    with pytest.raises(TypeError, match="use nothing: the log has no colours"):
        from_settings("app", {"use_colors": True})


def test_counterparts_are_flags():
    known = {
        option for action in parser()._actions if action.help != argparse.SUPPRESS for option in action.option_strings
    }
    for instead in foreign.COUNTERPARTS.values():
        assert set(re.findall(r"--[a-z-]+", instead)) <= known
    assert not known & foreign.COUNTERPARTS.keys()
