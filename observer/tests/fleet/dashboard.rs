//! The dashboard for Grafana: every expression gives data of a real Prometheus. Grafana itself is not run.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{
    load::{self, Connections, PORTS},
    packaging,
    programs::{Fleet, query},
};

const UID: &str = "observer-fleet";

/// Expressions that give nothing here, each with its reason.
const EMPTY: [(&str, &str); 1] =
    [("observer_series_left_out{instance=~\".*\"}) > 0", "a fleet this small is within every bound")];

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(packaging("grafana/observer.json")).unwrap()).unwrap()
}

/// All panels, those of rows too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let rows = dashboard["panels"].as_array().unwrap();
    rows.iter().flat_map(|row| [row].into_iter().chain(row["panels"].as_array().into_iter().flatten())).collect()
}

fn variables(dashboard: &Value) -> &[Value] {
    dashboard["templating"]["list"].as_array().unwrap()
}

/// Panels and variables with their expressions; those of variables as what Grafana asks for.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for variable in variables(dashboard) {
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        if let Some(inside) = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) {
            let (series, label) = inside.rsplit_once(", ").unwrap();
            all.push((
                format!("variable {}", variable["name"]),
                format!("count by ({label}) ({series}{{{label}!=\"\"}})"),
            ));
        }
    }
    all
}

/// As Grafana asks where all of each variable is chosen.
fn filled(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "10s").replace("}{", ",");
    ["$instance", "$netns", "$peer"].iter().fold(expr, |expr, variable| expr.replace(variable, ".*"))
}

#[test]
fn every_expression_of_the_dashboard_gives_data() {
    let fleet = Fleet::start();
    load::prepare(&fleet.network);
    let [client, ..] = &fleet.network.hosts;
    let mut connections = Connections::default();
    connections.open(client, PORTS);
    load::assert_exhausted(client);
    let queue = load::full_accept_queue(&fleet.network);

    let dashboard = dashboard();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 40, "{}", expressions.len());
    let mut listed = BTreeSet::new();
    for (title, expr) in &expressions {
        let expr = filled(expr);
        assert!(!expr.contains('$'), "{title}: a variable that this test does not know: {expr}");
        if let Some((part, _)) = EMPTY.iter().find(|(part, _)| expr.contains(part)) {
            listed.insert(*part);
            assert!(query(&expr).is_some(), "{title}: Prometheus refuses {expr}");
            continue;
        }
        fleet.eventually(&format!("{title}: {expr}"), || query(&expr).filter(|rows| !rows.is_empty()));
    }
    assert_eq!(listed.len(), EMPTY.len(), "listed as empty, and not in the dashboard");
    drop((connections, queue));
}

#[test]
fn the_dashboard_leads_from_the_fleet_to_a_destination() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], UID);
    let names: BTreeSet<&str> =
        variables(&dashboard).iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["datasource", "instance", "netns", "peer"]));
    let text = dashboard.to_string();
    for name in &names {
        assert!(text.contains(&format!("var-{name}=")) || text.contains(&format!("${{{name}")), "{name} is not used");
    }
    let rows = panels(&dashboard).into_iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<&str> = rows.map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Fleet", "Host: $instance", "Namespace: $netns", "Destination: $peer"]);
    // From each level a link to the next.
    for name in ["instance", "netns", "peer"] {
        assert!(text.contains(&format!("/d/{UID}?var-{name}=${{__value.raw}}")), "no link chooses {name}");
    }
}

#[test]
fn panels_have_a_title_a_description_and_a_place_of_their_own() {
    let dashboard = dashboard();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id stands twice");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24, "{title} is too wide");
            for y in place("y")..place("y") + place("h") {
                assert!(places.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}
