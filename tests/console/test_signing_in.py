"""Signing in: by the printed address, by a key in the form; wrong keys, signing out, somebody else's view."""

import subprocess
import sys


def test_the_token_is_exchanged_and_leaves_the_address(fresh, site):
    fresh.sign_in(site.token, "/flow?view=list")
    page = fresh.page
    assert page.url == f"{site.url}/flow?view=list"
    page.locator(".flow-list tbody tr").first.wait_for()
    assert site.token not in page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, history.state, document.cookie])"
    )
    page.reload()
    page.locator(".flow-list tbody tr").first.wait_for()
    fresh.check()


def test_the_form(fresh, site, axe):
    from tests.console.test_screens import use

    page = fresh.page
    fresh.open("/tables/silver.orders?tab=schema")
    page.get_by_label("Key", exact=True).fill("ls_dev_wrong_key")
    assert use(page, axe) == []
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Key", exact=True).get_attribute("type") == "password"
    page.get_by_label("Key", exact=True).fill(site.token)
    page.get_by_role("button", name="Sign in").click()
    page.locator(".column-name").first.wait_for()
    assert page.url.endswith("/tables/silver.orders?tab=schema"), "one comes to where one wanted to go"
    fresh.errors = [error for error in fresh.errors if "401" not in error]
    fresh.check()


def test_signing_out_ends_it_everywhere(fresh, site):
    page = fresh.page
    fresh.sign_in(site.token)
    other = page.context.new_page()
    other.goto(f"{site.url}/")
    other.locator(".live-live").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("Sign in to Lodestream").wait_for()
    other.get_by_text("Sign in to Lodestream").wait_for(timeout=15_000)
    assert other.locator("[data-figure=rows-gold]").count() == 0, "nothing is left on the page"


def test_somebody_else_sees_what_policies_let_them_see(fresh, site):
    command = [sys.executable, "-m", "lodestream.cli", "-C", str(site.root), "keys", "create", "eva", "-s", "query:*"]
    key = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    page = fresh.page
    fresh.open("/tables/gold.revenue_by_country")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.locator(".grid-row").first.wait_for()
    assert page.locator(".who-name").inner_text() == "eva"
    assert page.locator(".catalog-table > span:first-child").all_inner_texts() == ["revenue_by_country"]
    assert [row.locator(".grid-cell").first.inner_text() for row in page.locator(".grid-row").all()] == ["DE"]
    page.get_by_text("filtered for you").wait_for()
    page.get_by_role("link", name="Home").click()
    page.get_by_text("withheld: a policy shows you a part of it").wait_for()
    page.get_by_role("link", name="Flow").click()
    page.locator(".react-flow__node").first.wait_for()
    assert page.locator(".react-flow__node").count() == 1
    page.get_by_role("link", name="Dashboards").click()
    page.get_by_role("link", name="The shop").click()
    page.locator("[data-panel='Revenue by country'] .bars").wait_for()
    assert page.locator("[data-panel]").count() == 2, "panels over other tables are not there"
    assert page.locator(".bar-name").all_inner_texts() == ["DE"]
    fresh.errors = [error for error in fresh.errors if "401" not in error]
    fresh.check()
