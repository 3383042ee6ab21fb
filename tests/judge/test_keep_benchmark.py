"""benchmarks/keep.py: what its students learn from, and the table."""

from benchmarks import keep
from demo_models.world import world
from r2r import datasets, tables
from tests.judge.rows import true_annotation


def test_every_third_query_has_the_reasons_of_the_next_passage_and_few_of_these_are_kept(tmp_path):
    rows = [true_annotation(query) for query in world().queries["dev"]]
    tables.write(rows, tmp_path / "run" / "annotate", "annotations")
    source = str(tmp_path / "run" / "annotate")
    assert keep.learned("all", source, tmp_path) == source
    read = {
        condition: datasets.read_annotations(keep.learned(condition, source, tmp_path))[0]
        for condition in keep.CONDITIONS
    }
    rows = read["all"]
    assert 0 < len(read["kept"]) < len(rows) and all(one in rows for one in read["kept"])
    assert [one["qid"] for one in read["spoiled"]] == [one["qid"] for one in rows]
    changed = [at for at, one in enumerate(read["spoiled"]) if one != rows[at]]
    assert changed == list(range(0, len(rows), 3))
    assert read["spoiled"][0]["evidence"] == [*rows[0]["evidence"][1:], rows[0]["evidence"][0]]
    spoiled = {rows[at]["qid"] for at in changed}
    assert sum(one["qid"] in spoiled for one in read["spoiled-kept"]) < len(read["spoiled-kept"]) / 6


def test_the_table_has_the_mean_the_spread_and_each_seed():
    found = {"all": {0: {"nDCG@10": 0.5}, 1: {"nDCG@10": 0.7}}, "kept": {0: {"nDCG@10": 0.25}}}
    assert keep.table(found)[2:] == ["| all | 0.600 ± 0.141 (0.500, 0.700) |", "| kept | 0.250 (0.250) |"]


def test_conditions_are_compared_query_by_query(tmp_path):
    places = {condition: {seed: tmp_path / f"{condition}-{seed}" for seed in (0, 1)} for condition in ("all", "kept")}
    for condition, gain in (("all", 0.0), ("kept", 0.1)):
        for seed, place in places[condition].items():
            folder = place / "evaluate"
            folder.mkdir(parents=True)
            rows = [f"student,q{number},{0.3 + gain + 0.01 * seed * number}\n" for number in range(8)]
            (folder / "per_query.csv").write_text("".join(["system,qid,nDCG@10\n", "oracle,q0,1.0\n", *rows]))
    (line,) = keep.compared(places)
    # Of the 256 patterns of signs, two are as far from 0.
    assert line == "kept - all: nDCG@10 +0.1000 (+0.1000 to +0.1000), p 0.008"
