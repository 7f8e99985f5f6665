from pathlib import Path

import pytest

from daemon.config import Config, ConfigError, load_config
from tests.support.places import ROOT

CONFIG = Path(__file__).parent / "config"
EXAMPLE = ROOT / "systemd" / "seqd.toml"


@pytest.mark.parametrize("name", sorted(path.name for path in (CONFIG / "bad").glob("*.toml")))
def test_bad_file_gives_the_message_a_person_should_read(name, monkeypatch):
    monkeypatch.chdir(CONFIG / "bad")
    with pytest.raises(ConfigError) as caught:
        load_config(Path(name))
    assert f"{caught.value}\n" == Path(name).with_suffix(".txt").read_text("utf-8")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("path", sorted((CONFIG / "good").glob("*.toml")), ids=lambda path: path.name)
def test_good_file_is_taken(path):
    assert load_config(path) != Config()


def test_every_bad_file_has_its_message():
    files = list((CONFIG / "bad").iterdir())
    assert {path.stem for path in files if path.suffix == ".toml"} == {
        path.stem for path in files if path.suffix == ".txt"
    }


def test_commented_example_shows_the_defaults():
    assert load_config(EXAMPLE) == Config()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"configuration .*/none\.toml: No such file or directory"):
        load_config(tmp_path / "none.toml")


def test_settings_that_are_left_out_have_their_defaults(tmp_path):
    path = tmp_path / "seqd.toml"
    path.write_text("[engine]\nslots = 4\n")
    config = load_config(path)
    assert config.engine.slots == 4
    assert config.model_copy(update={"engine": Config().engine}) == Config()
