//! Both formats are what they say they are.

use observer::export::openmetrics::Format;

use super::{
    exposition::Exposition,
    programs::{assert_openmetrics, assert_promtool_is_content, observer, printed},
    recording, recordings, synthetic, text,
};

#[track_caller]
fn assert_well_formed(openmetrics: &str, plain: &str) {
    assert!(openmetrics.ends_with("\n# EOF\n"), "no # EOF at the end");
    assert_openmetrics(openmetrics);
    assert_promtool_is_content(plain);
    let names = |text: &str| Exposition::parse(text).series.into_keys().collect::<Vec<_>>();
    assert_eq!(names(openmetrics), names(plain), "both formats have the same series");
}

#[test]
fn other_programs_read_the_series_of_recordings() {
    for file in recordings() {
        let file = file.to_str().unwrap();
        let print = |format: &str| printed(["snapshot", "--recording", file, format]);
        assert_well_formed(&print("--openmetrics"), &print("--prometheus"));
        let at_its_end = printed(["replay", file, "--openmetrics"]);
        assert_eq!(at_its_end, print("--openmetrics"), "replay prints the end as snapshot does");
    }
}

#[test]
fn other_programs_read_the_series_of_this_host() {
    let (openmetrics, plain) = (printed(["snapshot", "--openmetrics"]), printed(["snapshot", "--prometheus"]));
    assert!(openmetrics.ends_with("\n# EOF\n"));
    assert_openmetrics(&openmetrics);
    assert_promtool_is_content(&plain);
    let hooks = Exposition::parse(&openmetrics).values("observer_hook_info", "hook");
    assert!(hooks.contains("state") && hooks.contains("scan"), "{hooks:?}");
}

#[test]
fn other_programs_read_the_series_of_a_large_host() {
    let frame = synthetic::large_host();
    assert_well_formed(&text(&frame, Format::OpenMetrics), &text(&frame, Format::Text));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let file = recording("demo");
    let file = file.to_str().unwrap();
    for args in [
        &["--openmetrics", "--json"][..],
        &["--openmetrics", "--prometheus"],
        &["--prometheus", "--sort", "sockets"],
        &["--json", "--max-series", "500"],
        &["--max-series", "500"],
        &["--openmetrics", "--max-series", "255"],
    ] {
        let output = observer([&["snapshot", "--recording", file], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let early = printed(["snapshot", "--recording", file, "--at", "2", "--openmetrics"]);
    let late = printed(["snapshot", "--recording", file, "--openmetrics"]);
    let events = |text: &str| Exposition::parse(text).get("observer_events_total", &[]).unwrap();
    assert!(events(&early) < events(&late), "--at chooses the moment");
}
