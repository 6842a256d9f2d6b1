from services.retrain.domain.ids import decision_id_for_request, decision_id_for_snapshot, job_id_for


def test_the_same_facts_give_the_same_ids_for_ever() -> None:
    assert decision_id_for_snapshot("flights", 7) == "decision-c8cf489ed229d3a2-s7"
    assert decision_id_for_request("flights", "r-1") == "decision-c8cf489ed229d3a2-ra5fa777a3dc67268"
    assert job_id_for("decision-c8cf489ed229d3a2-s7") == "job-c8cf489ed229d3a2-s7"


def test_other_facts_give_other_ids_and_long_names_fit() -> None:
    longest = "m" * 128
    ids = {
        decision_id_for_snapshot(longest, 2**63 - 1),
        decision_id_for_snapshot(longest, 1),
        decision_id_for_snapshot("m", 1),
        decision_id_for_request(longest, "r" * 128),
        decision_id_for_request("m", "1"),
    }

    assert len(ids) == 5
    assert max(map(len, ids)) <= 128
