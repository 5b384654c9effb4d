//! The rules of packaging/prometheus: promtool takes them, their thresholds are the tool's own levels, and every series that
//! they, or the dashboard, name exists.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use observer::model::limit::{LimitKind, level::Level};

use super::page::described;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).current_dir(folder()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
}

/// An alert as the file has it.
struct Alert {
    name: String,
    expr: String,
    severity: String,
    level: Option<String>,
}

fn alerts() -> Vec<Alert> {
    let text = read("alerts.yml");
    let alert = |block: &str| {
        let after =
            |key: &str| block.split_once(key).map(|(_, rest)| rest.split(['\n', ',', '}']).next().unwrap().trim());
        let expr = block.split_once("expr: ").unwrap().1.lines().next().unwrap();
        Alert {
            name: block.lines().next().unwrap().trim().to_owned(),
            expr: expr.to_owned(),
            severity: after("severity: ").unwrap().to_owned(),
            level: after("level: ").map(str::to_owned),
        }
    };
    text.split("- alert:").skip(1).map(alert).collect()
}

#[test]
fn promtool_takes_the_rules_and_their_unit_tests_pass() {
    promtool(&["check", "rules", "rules.yml", "alerts.yml"]);
    promtool(&["test", "rules", "tests.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    let tests = read("tests.yml");
    for Alert { name, .. } in alerts() {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} has no unit test");
    }
}

#[test]
fn thresholds_are_those_at_which_observer_shows_the_level() {
    let below = |level: Level| match level {
        Level::Ok => panic!("nothing is below ok"),
        Level::Notice => Level::Ok,
        Level::Warning => Level::Notice,
        Level::Critical => Level::Warning,
        Level::Exhausted => Level::Critical,
    };
    let mut levels = BTreeSet::new();
    for Alert { name, expr, severity, level } in alerts() {
        let Some(level) = level else {
            assert!(!expr.contains(">= 0."), "{name} compares a ratio, and names no level: {expr}");
            continue;
        };
        let threshold: f64 = expr.split_once(">= ").unwrap().1.parse().unwrap();
        let at = Level::of_ratio(threshold);
        assert_eq!(at.name(), level, "{name}: {threshold}");
        assert_eq!(Level::of_ratio(threshold - 1e-9), below(at), "{name}: the level begins below {threshold}");
        let is_of_ports = expr.contains("ports");
        let kind = if is_of_ports { LimitKind::Ports } else { LimitKind::HostFiles };
        assert_eq!(kind.level(threshold), at, "{name}: not a level of its kind");
        assert_eq!(severity, if at == Level::Notice { "info" } else { at.name() }, "{name}");
        levels.insert((expr.split_once(" >= ").unwrap().0.to_owned(), at));
    }
    let of = |level: Level| levels.iter().filter(|(_, it)| *it == level).count();
    assert_eq!([Level::Notice, Level::Warning, Level::Critical].map(of), [1, 5, 5], "{levels:?}");
}

#[test]
fn the_page_on_fleets_has_every_alert_and_the_configuration_as_it_is() {
    let page = read("../../docs/fleet.md");
    for Alert { name, severity, .. } in alerts() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(row.is_some_and(|row| row.contains(&severity)), "{name} {severity}");
    }
    let configuration = read("prometheus.yml");
    let (_, scrape) = configuration.split_once("scrape_configs:").unwrap();
    assert!(page.contains(&format!("scrape_configs:{scrape}")), "not the lines of prometheus.yml: {scrape}");
}

#[test]
fn every_series_that_a_rule_or_the_dashboard_names_exists() {
    let described = described();
    let text = read("alerts.yml") + &read("rules.yml") + &read("../grafana/observer.json");
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter == ':';
    let names: BTreeSet<&str> =
        text.split(|letter| !is_name(letter)).filter(|word| word.starts_with("observer_")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(described.contains_key(name), "no series is called {name}");
    }
}
