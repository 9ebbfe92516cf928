from bench import kafka_peers, kafka_report

PEER = {"version": "1", "events_per_s": 9, "cpu_ns_per_event": 8, "peak_mib": 7, "missing": "silver", "wrong": []}


def test_the_summary_has_null_for_what_was_not_measured():
    told = kafka_report.summary({"broker_cpu_s": 1.5, "cores": 2})
    assert told["gold_events_per_s"] is told["latency_ms"] is told["catch_up_s"] is told["native"] is None
    assert (told["broker_cpu_s"], told["cores"], told["peers"]) == (1.5, 2, {})


def test_a_peer_that_failed_or_is_wrong_says_so():
    peers = {"a": PEER, "b": {**PEER, "wrong": ["gold: 1 rows"]}, "c": {"error": "no Java"}}
    told = kafka_report.summary({"broker_cpu_s": 1.5, "cores": 2, "peers": peers})["peers"]
    assert [told["a"]["equal"], told["b"]["equal"], told["c"]["events_per_s"]] == [True, False, None]
    assert told["c"]["error"] == "no Java"


def test_a_line_names_figures_machine_and_command():
    text = kafka_report.line("drain_all", {"events_per_s": 12345, "native": True, "command": "-m x"}, 2, 0.51)
    assert text == "drain_all:  events_per_s 12,345  native True  (2 cores, load 0.5)\n    -m x"
    assert "gold: 1 rows" in kafka_report.line("peer_b", {**PEER, "wrong": ["gold: 1 rows"]}, 2, 0.5)


def test_slow_peers_get_a_topic_of_their_own():
    assert kafka_peers.heats(["spark", "quix"]) == [("peers", 1, ["spark"]), ("peers-quix", 10, ["quix"])]
    assert kafka_peers.heats(["quix"]) == [("peers-quix", 10, ["quix"])]
