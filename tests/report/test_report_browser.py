"""The report in a browser."""

import pytest

from tests.report_sets import MemorySet, reported

VIEWS = ["First frame", "Flow", "Ground truth", "Error", "Mask", "Occlusion"]
HOSTILE = "a</script><img src=x onerror=\"document.title='run'\"><b>'&amp;"
HIGH_IS_WORSE, LOW_IS_WORSE = ("epe", "fl", "s0-10", "unmatched"), ("1px", "3px", "5px")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on 200 images, of which one set has other labels, one name is hostile."""
    folder = tmp_path_factory.mktemp("report")
    errors = [(37 * i) % 140 / 10 + 0.01 * i for i in range(140)]
    names = [f"clean/alley_{i // 50}/frame_{i:04d}" for i in range(139)] + [HOSTILE]
    sets = {
        "sintel.training1.clean": MemorySet(errors, names),
        "kitti.2015.val": MemorySet([i % 50 / 10 for i in range(60)], noc=True),
    }
    totals = reported(sets, folder, images=260)
    return (folder / "8ca_5.html").as_uri(), totals


@pytest.fixture(scope="module")
def address(report):
    return report[0]


def rows(page):
    return page.locator("#images tbody tr:visible")


def values(page, measure):
    """Of the table's rows from the top, None where there is none."""
    cells = page.locator(f'#images tbody tr:visible td[data-m="{measure}"]')
    found = cells.evaluate_all("cells => cells.map((cell) => cell.dataset.v)")
    return [None if value is None else float(value) for value in found]


def in_order(found, falling):
    """Whether values fall or rise, those that are missing at the end."""
    known = [value for value in found if value is not None]
    return found == sorted(known, reverse=falling) + [None] * (len(found) - len(known))


def tab(page):
    return page.locator('#tabs [aria-selected="true"]').inner_text().strip()


def picture(page, selector="#picture"):
    """(alternative text, whether it was decoded)."""
    page.wait_for_function(f"document.querySelector('{selector}').complete")
    return page.locator(selector).evaluate("img => [img.alt, img.naturalWidth > 0]")


def test_it_loads_200_images_worst_first_and_decodes_few(visit, report):
    page = visit()
    assert rows(page).count() == 200
    assert in_order(values(page, "epe"), falling=True)
    worst = rows(page).first.locator("button").inner_text()
    assert page.locator("#viewer-title").inner_text() == worst
    assert page.locator("#position").inner_text() == "1 of 200"
    assert picture(page) == [f"Flow of {worst}", True]
    assert page.locator("#tabs button").all_inner_texts() == VIEWS
    text = page.locator(".totals").inner_text()
    for total in report[1].values():
        assert f"{total['epe']:.3f}" in text

    last = rows(page).last.locator("img")
    assert last.count() == 0
    region = page.locator(".images")
    region.scroll_into_view_if_needed()
    rows(page).first.locator("img").wait_for()
    assert page.locator(".thumb img").count() < 60
    region.evaluate("it => it.scrollTo(0, it.scrollHeight)")
    last.wait_for()
    assert last.evaluate("img => img.decode().then(() => img.naturalWidth)") == 128
    rows(page).first.locator("img").wait_for(state="detached")
    assert page.locator(".thumb img").count() < 60


def test_it_sorts_by_every_measure_in_both_directions(visit):
    page = visit()
    for measure in HIGH_IS_WORSE[1:] + LOW_IS_WORSE + HIGH_IS_WORSE[:1]:
        head = page.locator(f'#images th[data-m="{measure}"]')
        falling = measure in HIGH_IS_WORSE
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == ("descending" if falling else "ascending")
        assert in_order(values(page, measure), falling)
        head.locator("button").click()
        assert in_order(values(page, measure), not falling)
        assert page.locator("#images [aria-sort]").count() == 1
    assert None in values(page, "unmatched")


def test_it_finds_images_by_set_and_name_and_shows_names_as_they_are(visit):
    page = visit()
    page.select_option("#set", label="kitti.2015.val")
    assert rows(page).count() == 60
    assert page.locator("#position").inner_text() == "1 of 60"
    page.fill("#find", "FRAME_0049")
    assert rows(page).count() == 1
    assert page.locator("#viewer-title").inner_text() == "scene/frame_0049"
    assert page.locator("#viewer-set").inner_text().startswith("kitti.2015.val")
    assert page.locator("#shown").inner_text() == "1 of 200"
    page.fill("#find", "nothing")
    assert page.locator("#none").is_visible()
    page.select_option("#set", "")
    page.fill("#find", "onerror")
    assert rows(page).count() == 1
    assert rows(page).first.locator("th button").inner_text() == HOSTILE
    assert picture(page) == [f"Flow of {HOSTILE}", True]
    assert page.title() == "Validation of 8ca, step 5"  # the name's script did not run
    page.fill("#find", "")
    assert rows(page).count() == 200


def test_keys_switch_pictures_and_images(visit):
    page = visit()
    title = page.locator("#viewer-title").inner_text()
    page.locator(".images").scroll_into_view_if_needed()
    for name in VIEWS[2:] + VIEWS[:2]:
        page.keyboard.press("ArrowRight")
        assert tab(page) == page.locator("#legend-title").inner_text() == name
        assert picture(page) == [f"{name} of {title}", True]
        thumb = rows(page).first.locator("img")
        thumb.wait_for()
        assert thumb.get_attribute("alt") == f"{name} of {title}"
    page.keyboard.press("ArrowLeft")
    assert tab(page) == "First frame"

    page.locator("#stage").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#position").inner_text() == "2 of 200"
    assert page.locator("#viewer-title").inner_text() != title
    assert tab(page) == "First frame"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.locator("#position").inner_text() == "1 of 200"
    page.locator("#find").focus()
    page.keyboard.type("frame")
    page.keyboard.press("ArrowLeft")
    assert tab(page) == "First frame"


def test_a_click_shows_an_image_with_its_legend_and_measures(visit):
    page = visit()
    row = rows(page).nth(5)
    row.click()
    assert row.get_attribute("aria-current") == "true"
    name = row.locator("th button").inner_text()
    assert page.locator("#viewer-title").inner_text() == name
    page.locator("#tabs button", has_text="Error").click()
    assert picture(page) == [f"Error of {name}", True]
    assert page.locator("#legend .error").is_visible()
    assert not page.locator("#legend .wheel").is_visible()
    page.locator("#tabs button", has_text="Ground truth").click()
    assert picture(page, "#legend .wheel img")[1]
    scale = page.locator("#legend p:visible b[data-scale]").inner_text()
    assert float(scale.replace(" px", "")) > 0
    shown = page.locator("#values").inner_text()
    assert row.locator('td[data-m="epe"]').inner_text() + " px" in shown
    assert row.locator('td[data-m="1px"]').inner_text() + " %" in shown


def test_zoom_by_keys_and_buttons(visit):
    page = visit()
    page.locator("#stage").focus()
    page.keyboard.press("Enter")
    assert page.locator("#zoom").is_visible()

    def place():
        return page.locator("#large").evaluate("img => [img.width, img.height, img.parentNode.scrollLeft]")

    assert picture(page, "#large")[1]
    fitted = place()
    page.keyboard.press("+")
    larger = place()
    assert larger[0] == pytest.approx(1.4 * fitted[0], rel=0.01)
    assert larger[2] == pytest.approx(0.2 * fitted[0], rel=0.02)  # the middle stays
    page.keyboard.press("ArrowRight")
    assert page.locator("#zoom-view").inner_text().startswith("Ground truth, full colour at")
    assert place() == larger  # to compare the same place
    page.keyboard.press("0")
    assert place() == fitted
    page.locator("#larger").click()
    assert place() == larger
    page.locator("#fit").click()
    assert place() == fitted
    page.keyboard.press("ArrowDown")
    assert page.locator("#zoom-title").inner_text() == page.locator("#viewer-title").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    assert page.evaluate("document.activeElement.id") == "stage"
    assert page.locator("#position").inner_text() == "2 of 200"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(visit, width):
    page = visit(width)
    page.fill("#find", "onerror")
    for _ in VIEWS:
        page.locator("#stage").press("ArrowRight")
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide == [width, width]
    page.fill("#find", "")
    if width < 500:
        page.select_option("#sort", "s0-10")
        page.select_option("#order", "best")
        assert in_order(values(page, "s0-10"), falling=False)
        assert rows(page).first.locator("td:visible").all_inner_texts()[1:] != []
        rows(page).nth(3).tap()
        page.locator("#stage").tap()
        assert page.locator("#zoom").is_visible()
        page.locator("#close").tap()
        assert not page.locator("#zoom").is_visible()


def test_it_is_dark_where_dark_is_wanted(visit):
    def brightness(scheme):
        colour = visit(color_scheme=scheme).evaluate(
            "() => { const { backgroundColor, color } = getComputedStyle(document.body);"
            "return [backgroundColor, color]; }"
        )
        return [sum(map(int, c[4:-1].split(","))) / 3 for c in colour]

    page, ink = brightness("light")
    assert page > 200 and ink < 60
    page, ink = brightness("dark")
    assert page < 60 and ink > 200


def test_the_table_can_be_read_without_scripts(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#images tbody tr").count() == 200
    assert page.locator("noscript .note").is_visible()
    assert not page.locator("#viewer").is_visible()
