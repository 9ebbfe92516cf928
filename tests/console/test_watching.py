"""What the console is for: to watch gold move, find a bad row, mend it, take it again, and ask."""

import json

import pytest

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def figure(page, name):
    return int(page.locator(f"[data-figure={name}]").first.inner_text().replace(",", ""))


def rows_of(page, table):
    return int(page.locator(f"[data-rows='{table}']").inner_text().replace(",", ""))


def test_gold_moves_a_bad_row_is_mended_and_a_query_is_asked(watched, site):
    page = watched.page
    page.locator(".live-live").wait_for()
    silver, gold = rows_of(page, "silver.orders"), rows_of(page, "gold.revenue_per_minute")

    # Data comes, and the page that is open shows it without being asked.
    for _ in range(3):
        site.send(40)
        page.wait_for_timeout(300)
    site.wait(lambda: rows_of(page, "silver.orders") >= silver + 120, "silver moves on the page")
    site.wait(lambda: rows_of(page, "gold.revenue_per_minute") > gold, "gold moves on the page")

    # A bad row comes. The page says so, and leads to it.
    aside = figure(page, "quarantine")
    number = site.send(1, amount=-19)
    site.wait(lambda: figure(page, "quarantine") == aside + 1, "the open row is counted")
    page.get_by_role("link", name="Quality").first.click()
    page.get_by_role("heading", name="Quality", exact=True).wait_for()  # until then the page before is there
    page.get_by_role("link", name="silver.orders").first.click()
    page.get_by_role("button", name="expect:positive", exact=False).first.click()
    row = page.locator(".aside tbody tr", has_text=f"order_id o{number}")
    row.wait_for()
    before = page.locator(".aside tbody tr").count()
    row.locator(".aside-turn").click()
    amount = page.locator(".aside-values label", has_text="amount").locator("input")
    assert amount.input_value() == "-19.00"

    # It is mended, taken again, and gone; the table has it with its new value, and nothing is lost.
    amount.fill("19.00")
    page.get_by_role("button", name="Mend and take again").click()
    page.get_by_test_id("replayed").get_by_text("1 row passed").wait_for()
    row.wait_for(state="detached")
    assert page.locator(".aside tbody tr").count() <= before - 1
    page.get_by_role("link", name="Home").click()
    site.wait(lambda: figure(page, "quarantine") == aside, "it is open no more")
    page.get_by_text("Every row accounted for").wait_for()

    # A query, over what has just come.
    page.get_by_role("link", name="SQL").click()
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.type(f"select order_id, amount from silver.orders where order_id = 'o{number}'")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    page.get_by_test_id("sql-told").get_by_text("1 row").wait_for()
    assert page.locator(".grid-row .grid-cell").all_inner_texts() == [f"o{number}", "19.00"]
    assert "silver.orders @" in page.get_by_test_id("sql-told").inner_text()


def test_several_rows_are_taken_again_at_once(watched, site):
    page = watched.page
    first = site.send(3, amount=0)
    watched.open("/quality/silver.orders?reason=expect:positive")
    for number in range(first, first + 3):
        page.locator(".aside tbody tr", has_text=f"order_id o{number}").get_by_role("checkbox").check()
    page.get_by_role("button", name="Take 3 rows again").click()
    page.get_by_test_id("replayed").get_by_text("0 rows passed, 3 set aside again").wait_for()
    assert page.locator(".aside tbody tr", has_text=f"order_id o{first}").count() == 1, "a rule is a rule"


def test_a_record_that_did_not_decode_is_shown_as_it_came_and_mended(watched, site):
    page = watched.page
    number = site.sent
    whole = json.dumps(site.order(number))
    path = site.root / "incoming" / f"{number:06}-torn.jsonl"
    path.write_text(whole[:-1] + "\n", encoding="utf-8")
    watched.open("/quality/bronze.orders?reason=parse:json")
    row = page.locator(".aside tbody tr", has_text=f'"o{number}"')
    row.wait_for()
    row.locator(".aside-turn").click()
    record = page.get_by_label("The record")
    assert record.input_value() == whole[:-1]
    record.fill(whole)
    page.get_by_role("button", name="Mend and take again").click()
    page.get_by_test_id("replayed").get_by_text("1 row passed").wait_for()
    site.wait(lambda: site.get(f"/api/tables/silver.orders?order_id=eq.o{number}")["rows"], "it goes on to silver")
    site.sent += 1


def test_nothing_in_the_data_becomes_part_of_the_page(watched, site):
    page = watched.page
    site.send(2, country=EVIL)
    (number,) = (site.send(1, country=EVIL, amount=-1),)
    (site.root / "incoming" / "evil-torn.jsonl").write_text(
        '{"order_id": "' + EVIL.replace('"', "'") + "\n", encoding="utf-8"
    )
    gold = "/api/tables/gold.revenue_by_country?country=like.*IMG*"
    site.wait(lambda: site.get(gold)["rows"], "it is in gold")
    for path, there in (
        ("/tables/gold.revenue_by_country", ".grid-row"),
        ("/dashboards/shop", ".bars"),
        (f"/sql?q={'select * from gold.revenue_by_country'.replace(' ', '%20')}", ".sql-editor"),
        ("/quality/silver.orders", f"text=order_id o{number}"),
        ("/quality/bronze.orders", ".aside-turn"),
    ):
        watched.open(path)
        page.locator(there).first.wait_for()
        if path.startswith("/sql"):
            page.keyboard.press("Control+Enter")
            page.locator(".grid-row").first.wait_for()
        for button in page.locator(".aside-turn").all():
            button.click()
        page.wait_for_timeout(300)
        assert "IMG SRC" in page.locator("#root").inner_text().upper() or path.startswith("/dashboards"), path
        assert page.locator("#root img, #root script").count() == 0
        assert page.title() == "Lodestream"


def test_a_wrong_query_says_what_is_wrong_and_a_long_one_is_cancelled(watched):
    page = watched.page
    watched.open("/sql?q=select%20*%20from%20gold.revenue_by_contry")
    page.locator(".cm-content").wait_for()
    page.keyboard.press("Control+Enter")
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "revenue_by_country" in problem.inner_text(), "the nearest name is said"
    page.get_by_role("button", name="New query").click()
    page.locator(".cm-content").click()
    page.keyboard.insert_text(
        "select count(*) from range(100000) a, range(100000) b, range(1000) c where hash(a.range, b.range, c.range) = 1"
    )
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The server stopped working on it.").wait_for()
    watched.errors = [error for error in watched.errors if "status of 4" not in error]


def test_completion_knows_tables_and_columns(watched):
    page = watched.page
    watched.open("/sql?q=select%20%0Afrom%20gold.revenue_by_country")
    page.locator(".cm-content").click()
    page.keyboard.press("Control+End")
    page.keyboard.type(" where gold.revenue_by_country.rev", delay=20)
    page.locator(".cm-tooltip-autocomplete li", has_text="revenue").first.wait_for()
    page.keyboard.press("Escape")


@pytest.mark.parametrize("form", ["CSV", "Arrow", "Parquet"])
def test_a_result_is_saved(watched, form, tmp_path):
    import pyarrow.csv
    import pyarrow.ipc
    import pyarrow.parquet

    page = watched.page
    watched.open("/sql?q=select%20country%2C%20orders%20from%20gold.revenue_by_country")
    page.locator(".cm-content").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator(".grid-row").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name=form).click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    read = {
        "CSV": pyarrow.csv.read_csv, "Parquet": pyarrow.parquet.read_table,
        "Arrow": lambda file: pyarrow.ipc.open_stream(file).read_all(),
    }[form]  # fmt: skip
    table = read(path)
    assert table.column_names == ["country", "orders"]
    assert len(table) >= 5


def test_a_chart_of_a_result(watched):
    page = watched.page
    watched.open("/sql?q=select%20window_start%2C%20country%2C%20revenue%20from%20gold.revenue_per_minute")
    page.locator(".cm-content").wait_for()
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Chart").click()
    page.locator(".sql-chart canvas").wait_for()
    assert "DE" in page.locator(".chart-legend").inner_text()


def test_tabs_and_texts_are_there_again(watched):
    page = watched.page
    watched.open("/sql?q=select%201%20as%20one")
    page.locator(".cm-content").wait_for()
    page.get_by_role("button", name="New query").click()
    page.locator(".cm-content").click()
    page.keyboard.insert_text("select 2 as two")
    watched.open("/sql")
    page.locator(".cm-content").wait_for()
    assert page.locator(".sql-tab button:first-child").all_inner_texts() == ["select 1 as", "select 2 as"]
    assert "two" in page.locator(".cm-content").inner_text()


def test_the_table_as_it_was(watched, site):
    page = watched.page
    watched.open("/tables/silver.orders")
    page.locator(".grid-row").first.wait_for()
    page.get_by_label("As of a version or a time").fill("1")
    page.keyboard.press("Enter")
    page.locator(".preview-told", has_text="of version 1").wait_for()
    assert "as_of=1" in page.url
    page.get_by_role("button", name="Back to now").click()
    page.get_by_role("button", name="Filter", exact=True).click()
    page.get_by_label("Column").select_option("country")
    page.get_by_label("Value").fill("DE")
    page.get_by_role("button", name="Add").click()
    page.locator(".condition", has_text="country = DE").wait_for()
    page.locator(".preview-told", has_text="rows").wait_for()
    column = [cell.inner_text() for cell in page.locator(".grid-row [aria-colindex='3']").all()]
    assert set(column) == {"DE"}


def test_ten_thousand_rows_draw_only_what_is_in_sight(watched):
    page = watched.page
    watched.open("/sql?q=select%20range%20as%20n%20from%20range(10000)")
    page.locator(".cm-content").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator(".grid-row").first.wait_for()
    assert page.locator(".grid-row").count() < 60
    page.locator(".grid").focus()
    page.keyboard.press("ArrowDown")
    page.locator(".grid").evaluate("(grid) => { grid.scrollTop = grid.scrollHeight; }")
    page.locator(".grid-cell", has_text="9999").wait_for()
    assert page.locator(".grid-row").count() < 60
