"""What people's machines have in store for commands: odd addresses, encodings, homes, pictures."""

from pathlib import Path

import pytest

from db.store import StoreError, open_database, open_existing

# Databases


@pytest.mark.parametrize(
    "text",
    [
        "host=db user=me password=tiger dbname=x",
        "PGPASSWORD=tiger psql -h db",
        "postgres:me:tiger@host/x",
        "postgresql//me:tiger@host/x",
        "jdbc:postgresql:me:tiger",
        "me:tiger@host:5432/x",
    ],
)
def test_what_is_no_url_is_not_shown_as_a_path_with_its_password(tmp_path: Path, text: str) -> None:
    for open_it in (open_existing, open_database):
        with pytest.raises(
            StoreError, match="is no path, and no URL that can be read; give a path, or a URL"
        ) as raised:
            open_it(text)
        assert "tiger" not in str(raised.value)


@pytest.mark.parametrize("name", ["postgres", "a:b@c", "password=x", "~nobody here", "100 %", "it's"])
def test_odd_paths_are_paths(tmp_path: Path, name: str) -> None:
    open_database(tmp_path / name / "x.sqlite").dispose()
    open_existing(str(tmp_path / name / "x.sqlite")).dispose()


@pytest.mark.parametrize(
    "text", ["sqlite://x.sqlite", "sqlite:///x.sqlite?cache=shared", "x" * 300, "sqlite:///" + "x" * 300, "a/" * 3000]
)
def test_paths_that_are_none_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="give|check that you may"):
        open_existing(text)
    with pytest.raises(StoreError, match="give|check that you may"):
        open_database(text)
