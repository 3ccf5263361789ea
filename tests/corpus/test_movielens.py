"""MovieLens, in the form with `::` and in the form with commas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.corpus.events import Events
from idgr.corpus.sources.movielens import read_entries, read_events
from idgr.errors import IdgrError

Write = Callable[[str, Any], Path]


def triples(events: Events) -> list[tuple[str, str, int]]:
    columns = zip(events.user.tolist(), events.item.tolist(), (events.time // 10**6).tolist(), strict=True)
    return [(events.users[user], events.items[item], time) for user, item, time in columns]


DAT = b"1::1193::5::978300760\n2::661::3::978302109\n1::661::4::978301968\n"
CSV = b"userId,movieId,rating,timestamp\r\n1,1193,5.0,978300760\r\n2,661,3.0,978302109\r\n1,661,4.0,978301968\r\n"
EXPECTED = [("1", "1193", 978300760), ("2", "661", 978302109), ("1", "661", 978301968)]


@pytest.mark.parametrize(("name", "content"), [("ratings.dat", DAT), ("ratings.csv", CSV), ("ratings.csv.gz", CSV)])
def test_ratings(write: Write, name: str, content: bytes) -> None:
    assert triples(read_events(write(name, content))) == EXPECTED
    assert triples(read_events(write(name, content), min_rating=4)) == [EXPECTED[0], EXPECTED[2]]


def test_ratings_of_100k(write: Write) -> None:
    path = write("u.data", b"1\t1193\t5\t978300760\n2\t661\t3\t978302109\n1\t661\t4\t978301968\n")
    assert triples(read_events(path)) == EXPECTED
    assert triples(read_events(path, min_rating=4)) == [EXPECTED[0], EXPECTED[2]]
    with pytest.raises(IdgrError, match=r"u.data:2: 3 fields, not 4"):
        read_events(write("u.data", b"1\t1193\t5\t978300760\n2\t661\t3\n"))


def test_films_of_100k(write: Write) -> None:
    def film(start: str, *genres: int) -> str:
        return f"{start}|" + "|".join("1" if place in genres else "0" for place in range(19)) + "\n"

    content = film("1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy", 3, 4, 5)
    content += film("2|Misérables, Les (1995)|01-Jan-1995||http://x", 8, 18) + film("267|unknown|||", 0)
    films = list(read_entries(write("u.item", content.encode("latin-1"))))
    assert [(film.item_id, film.record["title"], film.record["genres"]) for film in films] == [
        ("1", "Toy Story (1995)", ["Animation", "Children's", "Comedy"]),
        ("2", "Misérables, Les (1995)", ["Drama", "Western"]),
        ("267", "unknown", []),
    ]
    assert films[0].record == {
        "title": "Toy Story (1995)",
        "genres": films[0].record["genres"],
        "released": "01-Jan-1995",
    }


def test_many_ratings_keep_their_lines(write: Write) -> None:
    events = read_events(write("ratings.dat", b"".join(b"%d::%d::3::%d\n" % (n % 7, n % 11, n) for n in range(2_500))))
    assert events.line.tolist() == list(range(1, 2_501))


def test_films_in_latin_1(write: Write) -> None:
    (film,) = read_entries(write("movies.dat", "73::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1")))
    assert (film.item_id, film.record) == ("73", {"title": "Misérables, Les (1995)", "genres": ["Drama", "Musical"]})


def test_films_in_quotes(write: Write) -> None:
    content = 'movieId,title,genres\n1,"Misérables, Les ""the"" (1995)",Drama|Musical\n2,X (2000),(no genres listed)\n'
    films = list(read_entries(write("movies.csv", content.encode())))
    assert [film.record for film in films] == [
        {"title": 'Misérables, Les "the" (1995)', "genres": ["Drama", "Musical"]},
        {"title": "X (2000)", "genres": []},
    ]
    assert films[0].line == 2


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b"1::2::3::4\n1::2::3\n", 2, "3 fields, not 4"),
        (b"1::2::3::4\n1::2::3::noon\n", 2, "timestamp 'noon' is not a number"),
        (b"1::2::3::4\n::2::3::4\n", 2, "empty key"),
        (b"userId,movieId,rating,timestamp\n1,2,3\n", 2, "3 fields, not 4"),
        (b"userId,movieId,rating,timestamp\n1,2,\xff,4\n", 2, "not valid UTF-8"),
        (b"user,movie,stars,time\n1,2,3,4\n", 1, "no header that names userId, movieId, timestamp"),
    ],
)
def test_faulty_ratings_are_named(write: Write, content: bytes, line: int, what: str) -> None:
    path = write("ratings", content)
    with pytest.raises(IdgrError, match=what) as caught:
        read_events(path)
    assert (caught.value.where, caught.value.line) == (str(path), line)


def test_a_rating_that_is_no_number_is_named_where_ratings_count(write: Write) -> None:
    with pytest.raises(IdgrError, match=r"ratings:1: rating 'good'"):
        read_events(write("ratings", b"1::2::good::4\n"), min_rating=3)


def test_the_whole_way(write: Write, prep: Callable[..., Path], load: Callable[[Path], list[dict[str, Any]]]) -> None:
    ratings = b"".join(b"1::%d::4::%d\n" % (movie, time) for movie, time in ((10, 3), (20, 1), (30, 2)))
    movies = b"30::C (1930)::Drama\n10::A (1910)::Comedy|Drama\n20::B (1920)::Film-Noir\n99::Z::Drama\n"
    folder = prep("movielens", write("ratings.dat", ratings), write("movies.dat", movies), "--k-core", "0")
    assert load(folder / "items.jsonl") == [
        {"item_id": "30", "text": "title: c (1930); genres: drama"},
        {"item_id": "10", "text": "title: a (1910); genres: comedy, drama"},
        {"item_id": "20", "text": "title: b (1920); genres: film-noir"},
    ]
    assert load(folder / "test.jsonl") == [{"user_id": "1", "history": ["20", "30"], "target": "10"}]


def test_films_in_utf_8_as_in_10m(write: Write) -> None:
    content = "1::Amélie (2001)::Comedy|Romance\n2::手 (1)::Drama\n".encode()
    assert [film.record["title"] for film in read_entries(write("movies.dat", content))] == ["Amélie (2001)", "手 (1)"]


def test_a_damaged_line_among_utf_8_is_named_and_turns_nothing_into_latin_1(write: Write) -> None:
    content = "1::Amélie::X\n2::Ménage::X\n3::A".encode() + b"\xe9::X\n"
    with pytest.raises(IdgrError, match=r"movies.dat:3: not valid UTF-8, as the file is elsewhere"):
        list(read_entries(write("movies.dat", content)))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_keys_of_ratings_are_of_the_encoding_of_the_whole_file(write: Write, encoding: str) -> None:
    content = "é::1::5::1\nü::ä::5::2\n".encode(encoding)
    events = read_events(write("ratings.dat", content))
    assert (events.users, events.items) == (["é", "ü"], ["1", "ä"])


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ('"userId","movieId","rating","timestamp"', ['"1","1193","5.0","978300760"', '2,"661",3,"978302109"']),
        (",timestamp,rating,movieId,userId", ["0,978300760.0,5.0,1193,1", "1,978302109.0,3.0,661,2"]),
        ("user_id;movie_id;rating;timestamp", ["1;1193;5;978300760", "", "2;661;3;978302109000"]),
        ("userId\tmovieId\trating\ttimestamp\tnote", ["1\t1193\t5\t978300760\ta", "2\t661\t3\t978302109\t"]),
        ("userId,movieId,rating,timestamp", ["1,1193,5,2000-12-31T22:12:40Z", "2,661,3,2000-12-31 23:35:09+01:00"]),
    ],
    ids=["quoted", "another order, pandas' index, fractions", "semicolons, milliseconds", "tabs, one more", "dates"],
)
def test_columns_are_found_by_their_names(write: Write, header: str, rows: list[str]) -> None:
    path = write("ratings.csv", "\n".join([header, *rows, ""]).encode())
    assert triples(read_events(path)) == EXPECTED[:2]
    assert triples(read_events(path, min_rating=4)) == EXPECTED[:1]
    assert read_events(path, min_rating=4).below_rating == (1, 1, 1)


def test_ratings_are_needed_only_where_they_count(write: Write) -> None:
    path = write("ratings.csv", b"userId,movieId,timestamp\n1,2,3\n")
    assert triples(read_events(path)) == [("1", "2", 3)]
    with pytest.raises(IdgrError, match=r"ratings.csv:1: no header that names userId, movieId, rating, timestamp"):
        read_events(path, min_rating=1)


def test_a_title_of_two_lines_and_other_columns(write: Write) -> None:
    content = 'title,movieId,genres,year\n"A\nB",1,X,1999\n"C, ""the""",2,,2000\nD,3\n'
    films = read_entries(write("movies.csv", content.encode()))
    assert [(film.line, film.item_id, film.record) for film in (next(films), next(films))] == [
        (2, "1", {"title": "A\nB", "genres": ["X"], "year": "1999"}),
        (4, "2", {"title": 'C, "the"', "genres": [""], "year": "2000"}),
    ]
    with pytest.raises(IdgrError, match=r"movies.csv:5: 2 fields, not 4"):
        next(films)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"1|Toy (1995)|01-Jan-1995||http://x|0|0\n", "MovieLens 100K's u.item .*; it holds films"),
        (b"user_id:token\titem_id:token\n1\t1\n", "RecBole's atomic file"),
        (b'{"user_id": "u"}\n', "is JSON Lines, not MovieLens; read it with `idgr prep jsonl`"),
        (b"1,2,3,4\n", "no header that names userId, movieId, timestamp; give userId::movieId"),
        (b"userId,movieId,rating,timestamp\n", "holds a header only"),
        (b"userId,movieId,rating,timestamp\n1,2,3,nan\n", "timestamp 'nan' is not a number but missing, null or NaN"),
        (b"userId,movieId,rating,timestamp\n1,2,3,4\n1,2,3,NaN\n", "ratings:3: timestamp 'NaN' is not a number but"),
        (b"userId,movieId,rating,timestamp\n1,2,3,4\n1,2,3,\n", "ratings:3: timestamp '' is not a number but missing"),
    ],
)
def test_other_forms_are_named(write: Write, content: bytes, what: str) -> None:
    with pytest.raises(IdgrError, match=what):
        read_events(write("ratings", content))


@pytest.mark.parametrize("rating", ["nan", ""])
def test_a_rating_that_is_nan_is_named(write: Write, rating: str) -> None:
    with pytest.raises(IdgrError, match=rf"ratings:1: rating '{rating}' is not a number"):
        read_events(write("ratings", f"1::2::{rating}::4\n".encode()), min_rating=3)
