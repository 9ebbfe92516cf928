"""The demo's project and a small one, and their bundles."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lodestream.app import open_project
from lodestream.demo.run import write_project
from lodestream.deploy.databricks import make_bundle

SMALL = {
    "lodestream.yaml": "project: shop\nlake: lake\n",
    "tables/bronze/orders.yaml": "source: {files: {path: abfss://in@acme.dfs.core.windows.net/orders}}\n"
    "columns: {order_id: string, amount: 'decimal(12,2)', country: string, ordered_at: timestamp}\n",
    "tables/silver/orders.yaml": "from: stream(bronze.orders)\n"
    "event_time: {column: ordered_at, delay: 30 seconds}\ndedup: {keys: [order_id]}\n"
    "partition_by: [date(ordered_at)]\n",
    "tables/gold/revenue.yaml": "sql: select country, sum(amount) as revenue from silver.orders group by country\n",
}


@pytest.fixture
def shop(tmp_path):
    """Writes the small project with some files changed; gives its folder."""

    def write(files=(), **settings):
        folder = tmp_path / "shop"
        config = SMALL["lodestream.yaml"]
        if settings:
            config += f"deploy: {{databricks: {json.dumps(settings)}}}\n"
        for name, text in (SMALL | {"lodestream.yaml": config} | dict(files)).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    return write


def bundle_of(folder: Path):
    with open_project(str(folder)) as app:
        return make_bundle(app.project, app.compiled_for("spark"))


def parsed(files):
    """The YAML files of a bundle, without what is copied from the project."""
    reader = YAML(typ="safe", pure=True)
    return {path: reader.load(data.decode()) for path, data in files.items() if path.endswith(".yml")}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_project(folder)
    return bundle_of(folder)


@pytest.fixture
def demo_files(demo):
    return dict(demo.files)
