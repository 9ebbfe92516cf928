"""A demo lake of a few rows, so that the commands of the demo's page run in a second."""

import json
from pathlib import Path

from lodestream.app import open_project
from lodestream.demo.run import write_project

_FLIGHT = {
    "year": 2013, "month": 1, "day": 1, "dep_time": 517, "sched_dep_time": 515, "dep_delay": 2, "arr_time": 830,
    "sched_arr_time": 819, "arr_delay": 11, "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR",
    "dest": "IAH", "air_time": 227, "distance": 1400, "hour": 5, "minute": 15, "time_hour": "2013-01-01T10:00:00Z",
}  # fmt: skip
_FEED = ("carrier", "flight", "tailnum", "origin", "dest", "dep_time", "dep_delay", "arr_delay", "air_time", "distance",
         "time_hour")  # fmt: skip
_SECOND_LINE = 204
"""Where the second line of the feed begins; the page traces the line that begins there."""
_FILES = {
    "weather/2013.jsonl": '{"origin":"EWR","year":2013,"month":1,"day":1,"hour":5,"temp":39.0,"wind_speed":12.7,'
    '"precip":0.0,"visib":10.0,"time_hour":"2013-01-01T10:00:00Z"}\n',
    "planes/planes.csv": "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\n"
    "N14228,1999,x,BOEING,737,2,149,,y\n",
    "airports/airports.csv": "faa,name,lat,lon,alt,tz,dst,tzone\nIAH,Houston,29.9,-95.3,97,-6,A,America/Chicago\n",
    "airlines/airlines.csv": "carrier,name\nUA,United Air Lines Inc.\n",
}


def make_small_demo(folder: Path) -> None:
    """Write and run the demo's project over one day with a few flights, and a feed with one bad line."""
    folder.mkdir()
    write_project(folder)
    flights = [_FLIGHT | {"flight": 1 + i, "dep_delay": i} for i in range(4)]
    sent = [{name: flight[name] for name in _FEED} | {"mark": "on_time"} for flight in flights]
    sent[1]["origin"] = "XXX"
    first = _line(sent[0])
    sent[0]["mark"] += "x" * (_SECOND_LINE - len(first))
    made = {
        "flights/2013-01-01.jsonl": "".join(_line(flight) for flight in flights),
        "feed/2013-01.jsonl": "".join(_line(line) for line in sent),
        **_FILES,
    }
    for name, text in made.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    open_project(str(folder)).run()


def _line(row: dict[str, object]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
