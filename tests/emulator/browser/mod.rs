//! The emulator's page in a real browser.
//!
//! Needs Chromium. Without it the test says so and is skipped, but not where `CI` is set. With
//! `SCREENSHOT=docs/local_mixpanel.png` it writes the README's picture.

mod chromium;
mod mixpanel_js;

use mixpanel_groups::{Client, Event, Group, MixpanelGroup};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

use chromium::Browser;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: &'static str,
    #[mixpanel(rename = "$name")]
    name: &'static str,
    plan: &'static str,
    industry: Option<&'static str>,
    seats: u32,
    #[mixpanel(set_once)]
    founded: &'static str,
    #[mixpanel(union)]
    integrations: Vec<&'static str>,
}

const ACME: Company = Company {
    id: "acme_corp",
    name: "Acme Corporation",
    plan: "free",
    industry: None,
    seats: 5,
    founded: "1999-03-01",
    integrations: vec![],
};

/// The text of what the selector finds.
fn text(selector: &str) -> String {
    format!("(document.querySelector('{selector}')?.innerText ?? '')")
}

fn shows(browser: &mut Browser, selector: &str, wanted: &str) {
    browser.wait(&format!("{}.includes({})", text(selector), json!(wanted)));
}

/// Many events whose properties are more than the page shows.
#[test]
fn a_group_with_many_large_events_is_shown() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let acme = Group::new("company", "acme");
    let events = (0..60).map(|number| {
        let event = Event::new("Purchase").distinct_id("user123").group(&acme);
        let event = event.property("number", number);
        (0..40).fold(event, |event, property| {
            event.property(&format!("property {property}"), "x".repeat(250))
        })
    });
    client.import(events).unwrap().into_result().unwrap();
    client
        .send(acme.set(json!({"plan": "pro"})))
        .unwrap()
        .into_result()
        .unwrap();
    browser.open(&format!("{}/#company/acme", emulator.endpoint()));
    shows(browser, "#profile", "pro");
    browser.wait("document.querySelectorAll('#events li').length === 50");
    for event in ["first", "last"] {
        shows(browser, &format!("#events li:{event}-child"), "user123");
    }
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
    assert_eq!(
        browser.eval("document.body.innerText.includes('not reachable')"),
        false
    );
}

fn group_button(id: &str) -> String {
    format!(
        "[...document.querySelectorAll('#groups button')].find(b => b.innerText.includes('{id}'))"
    )
}

#[test]
fn what_arrives_is_seen_at_once() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("PROJECT_TOKEN").endpoint(emulator.endpoint());
    let client = client.build().unwrap();

    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    shows(browser, "main", &emulator.endpoint());
    // Lost if the page were loaded again.
    browser.eval("window.neverReloaded = true");

    // Updates appear, and a click shows the group.
    let globex = Company {
        id: "globex",
        name: "Globex",
        ..ACME
    };
    let marketing = Group::new("workspace", "ws_12345");
    let acme = ACME;
    let updates = globex.updates().chain(acme.updates());
    let updates = updates.chain([marketing.set(json!({"name": "Marketing Team"}))]);
    client.send(updates).unwrap().into_result().unwrap();
    for id in ["acme_corp", "globex", "ws_12345"] {
        shows(browser, "#groups", id);
    }
    shows(browser, "#counts", "3 groups, 0 events");
    shows(browser, "#keys", "company 2");
    browser.click(&group_button("acme_corp"));
    shows(browser, "main h2", "acme_corp");
    shows(browser, "#profile", "Acme Corporation");
    shows(browser, "#profile", "1999-03-01");
    browser.wait("document.querySelectorAll('#history li').length === 2");

    // The shown group changes before one's eyes, and its history says how.
    let grown = Company {
        plan: "enterprise",
        industry: Some("Technology"),
        seats: 120,
        integrations: vec!["salesforce", "hubspot"],
        ..ACME
    };
    client
        .send(grown.changes_since(&acme))
        .unwrap()
        .into_result()
        .unwrap();
    shows(browser, "#profile", "enterprise");
    shows(browser, "#profile", "hubspot");
    shows(browser, "#history li:first-child", "$union");
    shows(
        browser,
        "#history li:nth-child(2)",
        "plan: free → enterprise",
    );
    browser.wait("document.querySelectorAll('#history li').length === 4");

    // So do events that are linked to it, and no others.
    let event = |name: &str, user: &str| Event::new(name).distinct_id(user);
    let events = [
        event("Signed Up", "ada@acme.example").group(&acme),
        event("Feature Used", "ada@acme.example")
            .group(&acme)
            .property("feature", "advanced_analytics"),
        event("Purchase", "grace@acme.example")
            .group(&acme)
            .group(&globex)
            .property("amount", 99.99),
        event("Elsewhere", "bob@globex.example").group(&globex),
    ];
    client.import(&events).unwrap().into_result().unwrap();
    shows(browser, "#events", "feature: advanced_analytics");
    shows(browser, "#events li:first-child", "Purchase");
    browser.wait("document.querySelectorAll('#events li').length === 3");
    shows(browser, "#counts", "3 groups, 4 events");
    picture(browser, &client, &grown);

    // Search looks into ids and properties.
    browser.click("document.querySelector('#search')");
    browser.write("MARKETING");
    browser.wait("document.querySelectorAll('#groups li').length === 1");
    shows(browser, "#groups", "ws_12345");
    browser.write(" no such text");
    shows(browser, "#more", "Nothing found");
    browser.eval("document.querySelector('#search').select()");
    browser.write("e");
    shows(browser, "#groups", "globex");

    // A group key narrows the list down.
    browser.click("[...document.querySelectorAll('#keys button')].find(b => b.innerText.startsWith('workspace'))");
    browser.wait("document.querySelectorAll('#groups li').length === 1");
    browser.click("document.querySelector('#keys button')");
    browser.wait("document.querySelectorAll('#groups li').length > 1");

    // A deleted group keeps its history.
    client.send([acme.delete()]).unwrap().into_result().unwrap();
    shows(browser, "main", "There is no such group now");
    shows(browser, "#history li:first-child", "$delete");

    assert_eq!(browser.eval("window.neverReloaded"), true);
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

/// The page's own mistakes are not taken for an emulator that is gone, nor the other way round.
#[test]
fn what_cannot_be_shown_is_an_error_of_the_page() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    browser.eval("window.show = () => { throw new Error('on purpose') }; true");
    let acme = Group::new("company", "acme").set(json!({"plan": "free"}));
    client.send(acme).unwrap().into_result().unwrap();
    shows(browser, "#live", "cannot be shown");
    let is_seen = |errors: &[serde_json::Value]| json!(errors).to_string().contains("on purpose");
    assert!(is_seen(&browser.errors), "{:?}", browser.errors);
    drop(emulator);
    shows(browser, "#live", "not reachable");
    browser.errors.clear();
    // The failed requests of a few polls: the browser itself reports these.
    browser.wait("performance.getEntriesByType('resource').slice(-4).every(entry => entry.responseStatus === 0)");
    let thrown = |error: &&serde_json::Value| error["method"] == "Runtime.exceptionThrown";
    assert_eq!(browser.errors.iter().find(thrown), None);
}

/// As when its process is paused, and then goes on.
#[test]
fn an_emulator_that_does_not_respond_is_not_live() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    browser.eval(
        "const fetched = window.fetch;
         const resumed = new Promise(resume => { window.resume = resume; });
         window.fetch = async (...request) => { await resumed; return fetched(...request); };
         true",
    );
    shows(browser, "#live", "no response since ");
    browser.eval("window.resume(); true");
    shows(browser, "#live", "live");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

#[test]
fn an_id_that_is_too_long_for_an_address_is_an_error_of_the_page_and_no_request() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let long = Group::new("company", "€".repeat(22_000));
    let updates = [&long, &Group::new("company", "acme")].map(|group| group.set(json!({"a": 1})));
    client.send(updates).unwrap().into_result().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "acme");
    browser.click("document.querySelectorAll('#groups button')[1]");
    shows(browser, "#live", "cannot be shown");
    browser.click("document.querySelectorAll('#groups button')[0]");
    shows(browser, "#live", "live");
    assert_eq!(emulator.requests().len(), 1);
}

/// JavaScript's own numbers have 53 bits, and no `1.0`.
#[test]
fn numbers_are_shown_as_they_arrived() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let acme = Group::new("company", "acme");
    let send = |properties: serde_json::Value| {
        let report = client.send([acme.set(properties)]).unwrap();
        report.into_result().unwrap();
    };
    send(json!({
        "$name": 9_007_199_254_740_995_u64,
        "owner": u64::MAX,
        "ratio": 1.0,
        "small": -7,
        "list": [u64::MAX - 2, 2.0],
        "nested": {"inner": [i64::MIN, 3.0]},
        "counter": 9_007_199_254_740_992_u64,
        "floats": (0..30).map(f64::from).collect::<Vec<_>>(),
        "ids": (0..30).map(|n| 175_928_847_299_117_063_u64 + n).collect::<Vec<_>>(),
    }));
    let event = Event::new("Purchase").distinct_id("").group(&acme);
    let event = event.property("order", u64::MAX - 4);
    client.import([event]).unwrap().into_result().unwrap();
    browser.open(&format!("{}/#company/acme", emulator.endpoint()));

    for (name, value, kind) in [
        ("owner", "18446744073709551615", "number"),
        ("ratio", "1.0", "number"),
        ("small", "-7", "number"),
        ("list", "184467440737095516132.0", "list"),
        (
            "nested",
            r#"{"inner":[-9223372036854775808,3.0]}"#,
            "object",
        ),
        ("counter", "9007199254740992", "number"),
    ] {
        let row = format!("#profile tr[data-at=\"property {name}\"]");
        shows(browser, &row, name);
        let cells = format!(
            "[...document.querySelectorAll('{row} td')].map(cell => cell.textContent.replace(/\\s/g, '')).join(' ')"
        );
        assert_eq!(browser.eval(&cells), format!("{value} {kind}"));
    }
    let items = |name: &str| {
        format!(
            "document.querySelectorAll('#profile tr[data-at=\"property {name}\"] .item').length"
        )
    };
    assert_eq!(browser.eval(&items("list")), 2);
    // A long list is folded, also if JavaScript would write its last number differently.
    for (name, last) in [("floats", "29.0"), ("ids", "175928847299117092")] {
        let list = format!("document.querySelector('#profile tr[data-at=\"property {name}\"]')");
        assert_eq!(browser.eval(&items(name)), 30);
        let rest = browser.eval(&format!("{list}.querySelector('summary').textContent"));
        assert_eq!(rest, "10 more");
        let shown = browser.eval(&format!(
            "[...{list}.querySelectorAll('.item')].at(-1).textContent"
        ));
        assert_eq!(shown, last);
    }
    browser.wait("document.querySelector('#live').textContent === 'live'");
    shows(browser, "#groups", "9007199254740995");
    shows(browser, "#events", "18446744073709551611");

    // Two numbers that JavaScript takes for one.
    browser.eval(
        "window.fresh = []; new MutationObserver(() => fresh.push(...[...document.querySelectorAll('#profile .fresh th')].map(cell => cell.textContent))).observe(document.querySelector('main'), {childList: true}); true",
    );
    send(json!({"counter": 9_007_199_254_740_993_u64}));
    shows(browser, "#profile", "9007199254740993");
    shows(browser, "#history", "9007199254740992 → 9007199254740993");
    browser.wait("fresh.includes('counter')");
    assert_eq!(
        browser.eval("fresh.every(name => name === 'counter')"),
        true
    );
    screens(browser, "numbers");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

#[test]
fn texts_from_outside_are_texts() {
    const SCRIPT: &str = "<script>window.hacked = 1</script>";
    const IMAGE: &str = "<img src=x onerror='window.hacked = 1'>";
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("PROJECT_TOKEN").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let group = Group::new(IMAGE, "a/b#c?<b>&amp;\"'%");
    let properties = json!({
        SCRIPT: IMAGE,
        "$name": SCRIPT,
        "list": [IMAGE, {"nested": SCRIPT}],
        "items": [IMAGE],
    });
    client
        .send([
            group.set(properties),
            group.unset([SCRIPT]),
            group.set(json!({SCRIPT: IMAGE})),
        ])
        .unwrap()
        .into_result()
        .unwrap();
    let event = Event::new(IMAGE)
        .distinct_id(SCRIPT)
        .group(&group)
        .property(SCRIPT, IMAGE);
    client.import([event]).unwrap().into_result().unwrap();

    browser.open(&emulator.endpoint());
    shows(browser, "#groups b", "a/b#c?<b>&amp;\"'%");
    shows(browser, "#groups", SCRIPT);
    shows(browser, "main h2", "a/b#c?<b>&amp;\"'%");
    shows(browser, "#profile", SCRIPT);
    shows(browser, "#profile", IMAGE);
    shows(browser, "#history", SCRIPT);
    shows(browser, "#events b", IMAGE);
    shows(browser, "#events", SCRIPT);
    let made = browser.eval("document.querySelectorAll('body script, body img').length");
    assert_eq!(made, 1, "the page's own script and nothing else");
    assert_eq!(browser.eval("window.hacked"), json!(null));
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

#[test]
fn what_failed_is_seen_and_everything_can_be_cleared() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    let send = |path: &str, body: &str| {
        let url = format!("{}{path}", emulator.endpoint());
        let _ = ureq::post(url).send(body);
    };
    for _ in 0..40 {
        send("/groups", "{");
    }
    shows(browser, "main", "40 requests arrived, 40 of them failed");
    browser.click("document.querySelector('main a')");
    shows(browser, "main", "the body is not JSON");
    shows(browser, "#requests-button", "40 requests, 40 failed");

    // Long names, texts and lists fold; at 380 pixels nothing is wider than the page.
    let text = "long ".repeat(5_000);
    let list: Vec<_> = (0..1_000).map(|n| format!("item{n}")).collect();
    let key = "key_".repeat(60);
    let set = |id: &str, value: serde_json::Value| {
        let body = json!({"$token": "T", "$group_key": key, "$group_id": id, "$set": value});
        send("/groups", &body.to_string());
    };
    set("acme", json!({"text": text, "list": list, "plan": "free"}));
    set("acme", json!({"plan": "pro"}));
    browser.wait("document.querySelector('#groups button') !== null");
    browser.eval("location.hash = document.querySelector('#groups button').dataset.at");
    shows(browser, "#history", "plan: free → pro");
    shows(browser, "#profile", "980 more");
    let fits = "(() => { const main = document.querySelector('main'); \
        return main.scrollWidth <= main.clientWidth; })()";
    assert_eq!(browser.eval(fits), true);
    screens(browser, "group");
    browser.narrow();
    browser.wait("document.documentElement.scrollWidth <= 380");
    assert_eq!(browser.eval(fits), true);
    screens(browser, "narrow");
    browser.widen();

    let many: Vec<_> = (0..5_000).collect();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let groups = many
        .iter()
        .map(|n| Group::new("company", *n).set(json!({"n": n})));
    client.send(groups).unwrap().into_result().unwrap();
    shows(browser, "#counts", "5,001 groups");
    browser.wait("document.querySelectorAll('#groups li').length === 200");
    browser.click("document.querySelector('#more-groups')");
    browser.wait("document.querySelectorAll('#groups li').length === 400");
    screens(browser, "many");

    browser.click("document.querySelector('#clear')");
    shows(browser, "main", "Nothing has arrived yet");
    assert!(emulator.profiles().is_empty() && emulator.requests().is_empty());
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

fn set_plan(client: &Client, key: &'static str, id: &'static str) {
    let update = Group::new(key, id).set(json!({"plan": "free"}));
    client.send([update]).unwrap().into_result().unwrap();
}

fn key_button(key: &str) -> String {
    format!(
        "[...document.querySelectorAll('#keys button')].find(b => b.innerText.startsWith('{key}'))"
    )
}

#[test]
fn a_cleared_page_shows_every_group_again() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    for filter in ["search", "key"] {
        for (key, id) in [("company", "acme"), ("team", "blue")] {
            set_plan(&client, key, id);
            shows(browser, "#groups", id);
        }
        if filter == "search" {
            browser.click("document.querySelector('#search')");
            browser.write("blue");
        } else {
            browser.click(&key_button("team"));
        }
        browser.wait("document.querySelectorAll('#groups li').length === 1");
        browser.click("document.querySelector('#clear')");
        shows(browser, "main", "Nothing has arrived yet");
        assert_eq!(browser.eval("document.querySelector('#search').value"), "");
        set_plan(&client, "company", "acme");
        shows(browser, "#groups", "acme");
        shows(browser, "main h2", "acme");
        emulator.reset();
    }
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

#[test]
fn where_no_group_matches_none_is_chosen() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    browser.click("document.querySelector('#search')");
    browser.write("blue");
    shows(browser, "#more", "Nothing found.");
    set_plan(&client, "company", "acme");
    shows(browser, "#counts", "1 group");
    shows(browser, "main", "No group is chosen.");
    screens(browser, "none_chosen");
    set_plan(&client, "team", "blue");
    shows(browser, "main h2", "blue");

    // A key whose groups are gone can be left again.
    browser.eval("document.querySelector('#search').select()");
    browser.press("Delete");
    browser.click(&key_button("team"));
    browser.wait("document.querySelectorAll('#groups li').length === 1");
    emulator.reset();
    set_plan(&client, "company", "acme");
    shows(browser, "#more", "Nothing found.");
    browser.click(&key_button("all"));
    shows(browser, "#groups", "acme");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

#[test]
fn going_back_shows_what_was_there() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main", "Nothing has arrived yet");
    browser.click("document.querySelector('#requests-button')");
    shows(browser, "main h2", "Requests");
    browser.eval("history.back()");
    shows(browser, "main", "Nothing has arrived yet");

    // The group that the page has chosen itself takes the place of none.
    let pages = browser.eval("history.length");
    set_plan(&client, "company", "acme");
    shows(browser, "main h2", "acme");
    assert_eq!(browser.eval("history.length"), pages);
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

/// Writes what the page looks like, light and dark, into the folder `SCREENSHOTS`.
fn screens(browser: &mut Browser, name: &str) {
    let Some(folder) = std::env::var_os("SCREENSHOTS") else {
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        let file = folder.join(format!("{name}_{scheme}.png"));
        std::fs::write(file, browser.screenshot()).unwrap();
    }
    browser.prefer("light");
}

/// For the README: light and calm, a little while after everything has come.
fn picture(browser: &mut Browser, client: &Client, company: &Company) {
    let Some(file) = std::env::var_os("SCREENSHOT") else {
        return;
    };
    for (id, name) in [
        ("initech", "Initech"),
        ("umbrella", "Umbrella"),
        ("hooli", "Hooli"),
        ("stark", "Stark Industries"),
    ] {
        let other = Company { id, name, ..ACME };
        client.send(other.updates()).unwrap().into_result().unwrap();
    }
    client
        .send([company.group().set(json!({"$name": "Acme Corporation"}))])
        .unwrap()
        .into_result()
        .unwrap();
    shows(browser, "#counts", "7 groups");
    // Away from the list, where it would mark a group.
    browser.click("document.querySelector('h1')");
    std::thread::sleep(std::time::Duration::from_secs(3));
    std::fs::write(&file, browser.screenshot()).unwrap();
    browser.prefer("dark");
    std::fs::write(
        std::env::temp_dir().join("local_mixpanel_dark.png"),
        browser.screenshot(),
    )
    .unwrap();
    browser.prefer("light");
}

#[test]
fn a_hundred_thousand_groups_stay_usable() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let updates = (0..100_000).map(|id| {
        let plan = if id == 0 { "the oldest" } else { "free" };
        Group::new("company", format!("c{id}")).set(json!({"plan": plan}))
    });
    assert_eq!(client.send(updates).unwrap().accepted, 100_000);
    browser.open(&emulator.endpoint());
    shows(browser, "#counts", "100,000 groups");
    browser.wait("document.querySelectorAll('#groups li').length === 200");

    // A group that changes comes first, and the others stay as they are.
    browser.eval("document.querySelector('#groups li:nth-child(2)').kept = true");
    let changed = Group::new("company", "c5").set(json!({"plan": "pro"}));
    client.send([changed]).unwrap().into_result().unwrap();
    shows(browser, "#groups li:first-child", "c5");
    browser.wait("document.querySelectorAll('#groups li').length === 200");
    browser.wait("document.querySelector('#groups li:nth-child(3)').kept === true");
    browser.click("document.querySelector('#more-groups')");
    browser.wait("document.querySelectorAll('#groups li').length === 400");

    // A search goes through all of them.
    browser.click("document.querySelector('#search')");
    browser.write("the oldest");
    browser.wait("document.querySelectorAll('#groups li').length === 1");
    shows(browser, "#groups", "c0");
    browser.write(", or none");
    shows(browser, "#more", "Nothing found.");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

/// What has the focus, and whether that is seen.
const FOCUS: &str = "(() => { const element = document.activeElement; \
    const { outlineStyle, outlineWidth } = getComputedStyle(element); \
    return `${element.id || element.innerText} ${outlineStyle !== 'none' && outlineWidth}`; })()";

#[test]
fn a_keyboard_is_enough() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let group = |key: &'static str, id: &'static str| Group::new(key, id);
    let text = "long ".repeat(100);
    client
        .send([
            group("team", "blue").set(json!({"a": 1})),
            group("company", "acme").set(json!({"plan": "free", "text": text})),
            group("company", "globex").set(json!({"plan": "free"})),
        ])
        .unwrap()
        .into_result()
        .unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "#groups", "blue");
    shows(browser, "main h2", "globex");

    // The order of the page, each seen.
    for expected in [
        "skip 2px",
        "requests-button 2px",
        "clear 2px",
        "search 2px",
        "all 3 2px",
        "company 2 2px",
        "team 1 2px",
    ] {
        browser.press("Tab");
        assert_eq!(browser.eval(FOCUS), expected);
    }
    for id in ["globex", "acme"] {
        browser.press("Tab");
        let focus = browser.eval(FOCUS);
        assert!(focus.as_str().unwrap().starts_with(id), "{focus}");
        assert!(focus.as_str().unwrap().ends_with(" 2px"), "{focus}");
    }

    // What changes meanwhile takes the focus from nobody.
    let changed = group("company", "acme").set(json!({"plan": "pro"}));
    client.send([changed]).unwrap().into_result().unwrap();
    shows(browser, "#groups li:first-child", "acme");
    browser.wait("document.activeElement.innerText?.startsWith('acme')");

    // Enter shows the group, and goes there.
    browser.press("Enter");
    shows(browser, "main h2", "acme");
    assert_eq!(browser.eval(FOCUS), "group 2px");

    // A folded text unfolds, and stays so when the group changes.
    browser.press("Tab");
    assert_eq!(browser.eval("document.activeElement.tagName"), "SUMMARY");
    browser.press("Enter");
    browser.wait("document.querySelector('#profile details').open");
    let changed = group("company", "acme").set(json!({"plan": "enterprise"}));
    client.send([changed]).unwrap().into_result().unwrap();
    shows(browser, "#profile", "enterprise");
    assert_eq!(
        browser.eval("document.querySelector('#profile details').open"),
        true
    );
    assert_eq!(browser.eval("document.activeElement.tagName"), "SUMMARY");

    // The list can be skipped.
    browser.eval("document.querySelector('#skip').focus()");
    browser.press("Enter");
    assert_eq!(browser.eval(FOCUS), "group 2px");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

#[test]
fn a_screen_reader_gets_through() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let acme = Group::new("company", "acme");
    let updates = [
        acme.set(json!({"plan": "free"})),
        Group::new("team", "blue").set(json!({"a": 1})),
        Group::new("team", "blue").delete(),
        Group::new("team", "bleu").unset(["a"]),
        acme.set(json!({"seats": 5})),
    ];
    client.send(updates).unwrap().into_result().unwrap();
    browser.open(&emulator.endpoint());
    shows(browser, "main h2", "acme");
    shows(browser, "#history", "seats");

    let read = browser.accessibility();
    for expected in [
        "heading \"Local Mixpanel\" level 1",
        "button \"Skip to the group\"",
        "button \"Clear\"",
        "navigation \"Groups\"",
        "searchbox \"Search ids and properties\"",
        "group \"Group keys\"",
        "button \"all 3\" pressed true",
        "button \"team 2\" pressed false",
        "main \"Group\"",
        "heading \"acme\" level 2",
        // In capitals, as they are seen.
        "heading \"PROFILE\" level 3",
        "heading \"HISTORY\" level 3",
        "heading \"LINKED EVENTS\" level 3",
        "table \"Profile\"",
        "list \"History\"",
        "columnheader \"Property\"",
        "columnheader \"Value\"",
        "rowheader \"plan\"",
        "rowheader \"seats\"",
        "status \"\" live polite",
    ] {
        assert!(
            read.iter().any(|line| line == expected),
            "{expected} is not in {read:#?}"
        );
    }
    let button = |id: &str, end: &str| {
        let found = read
            .iter()
            .find(|line| line.starts_with(&format!("button \"{id}")));
        let found = found.unwrap_or_else(|| panic!("{id} is not in {read:#?}"));
        assert!(found.contains(end), "{found}");
    };
    button("acme", "company\"");
    button("blue", "deleted\"");
    button("bleu", "never existed\"");
    // Nothing to press or to fill in has no name.
    let nameless = read.iter().find(|line| {
        let role = line.split(' ').next().unwrap();
        ["button", "link", "searchbox", "textbox"].contains(&role) && line.contains("\"\"")
    });
    assert_eq!(nameless, None, "{read:#?}");

    browser.click(&group_button("bleu"));
    shows(browser, "main", "team · never existed");
    shows(
        browser,
        "main",
        "There is no such group, and none of its updates creates it.",
    );
    shows(browser, "#history", "$unset");
    screens(browser, "never_existed");
    browser.click(&group_button("acme"));
    shows(browser, "#history", "seats");

    // What happens is said.
    client
        .send([acme.unset(["seats"])])
        .unwrap()
        .into_result()
        .unwrap();
    shows(browser, "#news", "acme: $unset");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

/// The emulator keeps the last of several events with the same identity, which may be another group's.
#[test]
fn an_event_that_comes_again_is_shown_once() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let [acme, globex] = ["acme", "globex"].map(|id| Group::new("company", id));
    let plan = |plan: &str| {
        let sent = client.send([acme.set(json!({"plan": plan}))]);
        sent.unwrap().into_result().unwrap();
    };
    let purchase = Event::new("Purchase").distinct_id("ada");
    let purchase = purchase.time(std::time::SystemTime::now()).insert_id("i1");
    let import = |event: Event| {
        client.import([event]).unwrap().into_result().unwrap();
    };
    // More than one update: the page gets what comes after the second one alone.
    plan("free");
    plan("pro");
    browser.open(&format!("{}/#company/acme", emulator.endpoint()));
    shows(browser, "#profile", "pro");
    import(purchase.clone().group(&acme));
    shows(browser, "#events", "Purchase");
    import(purchase.clone().group(&acme).property("again", "yes"));
    shows(browser, "#events", "again: yes");
    plan("enterprise");
    shows(browser, "#profile", "enterprise");
    assert_eq!(
        browser.eval("document.querySelectorAll('#events li').length"),
        1
    );
    screens(browser, "event_again");
    import(purchase.group(&globex));
    plan("free");
    shows(browser, "#history li:first-child", "enterprise → free");
    shows(browser, "main", "No event names this group");
    shows(browser, "#counts", "1 event");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}

/// As while a backfill runs, each of whose views is a new list.
#[test]
fn a_search_loads_one_part_at_a_time() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let browser = &mut browser;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let send = |ids: std::ops::Range<usize>, plan: &str| {
        let group = |id| Group::new("company", id).set(json!({"plan": plan}));
        let report = client.send(ids.map(group)).unwrap();
        report.into_result().unwrap();
    };
    // The oldest group is not in the part that the first view searches.
    send(0..1, "enterprise");
    send(1..10_100, "free");
    browser.open(&emulator.endpoint());
    shows(browser, "#counts", "10,100 groups");
    // Holds back each further part of the list, as if the emulator were slow.
    browser.eval(
        "window.parts = []; window.real = fetch; window.fetch = async (path, options) => { \
            if (path.includes('before=')) await new Promise(go => parts.push(go)); \
            return real(path, options); }; 0",
    );
    browser.click("document.querySelector('#search')");
    browser.write("enterprise");
    browser.wait("parts.length === 1");
    for round in 1..=3 {
        // More than a view has, so each is a new list.
        send(10_000 * round..10_000 * round + 250, "pro");
        let count = format!("{} requests", emulator.requests().len());
        shows(browser, "#requests-button", &count);
    }
    assert_eq!(browser.eval("parts.length"), 1);
    // It goes on with the last list.
    browser.eval("fetch = real; parts.forEach(go => go()); 0");
    browser.wait("document.querySelectorAll('#groups li').length === 1");
    browser.eval("document.querySelector('#search').select()");
    browser.write("no such text");
    shows(browser, "#more", "Nothing found.");
    assert_eq!(browser.errors, Vec::<serde_json::Value>::new());
}
