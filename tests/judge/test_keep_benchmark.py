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
