//! Ports of one host run out towards one destination.

use serde_json::{Value, json};

use super::{
    load::{self, Connections, PORTS, SERVICE},
    network::HOSTS,
    programs::{Fleet, alerts, instance, query},
};

const ALERT: &str = "ObserverPortsRunOut";

fn number(row: &Value) -> f64 {
    row["value"][1].as_str().unwrap().parse().unwrap()
}

/// Ports left towards the service, by host, as Prometheus has them.
fn ports_left() -> Option<Vec<(String, f64)>> {
    let expr = format!("observer_destination_ports_left{{peer_address=\"{}\",peer_port=\"{SERVICE}\"}}", HOSTS[1]);
    let rows = query(&expr)?;
    Some(rows.iter().map(|row| (row["metric"]["instance"].as_str().unwrap().to_owned(), number(row))).collect())
}

/// Waits until Alertmanager has sent this. Others may come before: `sent` keeps them all.
fn notified(fleet: &Fleet, sent: &mut Vec<Value>, labels: &Value, status: &str) -> Value {
    fleet.eventually(&format!("a notification: {labels} {status}"), || {
        sent.extend(fleet.notifications.try_iter());
        sent.iter().find(|alert| alert["labels"] == *labels && alert["status"] == status).cloned()
    })
}

#[test]
fn a_person_sees_which_host_runs_out_of_ports_before_it_does_and_gets_an_alert_when_it_has() {
    let fleet = Fleet::start();
    load::prepare(&fleet.network);
    let [client, ..] = &fleet.network.hosts;
    let (mut connections, mut sent) = (Connections::default(), Vec::new());

    // Before: one host of three, and how many more calls get a port.
    connections.open(client, 40);
    let left = PORTS - connections.len();
    let seen = fleet.eventually("ports that are left, of one host", || {
        let seen = ports_left()?;
        (seen.iter().map(|(_, left)| *left).sum::<f64>() - 24.0).abs().le(&0.1).then_some(seen)
    });
    assert_eq!(seen, [(instance(HOSTS[0]), 24.0)]);
    let slow = json!({
        "alertname": "ObserverConnectSlow", "severity": "info", "level": "notice",
        "instance": instance(HOSTS[0]), "job": "observer", "netns": client.0,
    });
    notified(&fleet, &mut sent, &slow, "firing");
    // The kernel agrees: so many calls get a port, and the next one does not.
    connections.open(client, left);
    load::assert_exhausted(client);

    let labels = |severity: &str| {
        json!({
            "alertname": ALERT, "severity": severity, "level": severity,
            "instance": instance(HOSTS[0]), "job": "observer", "netns": client.0,
        })
    };
    let firing = fleet.eventually("both alerts in Alertmanager", || {
        let mut alerts = alerts()?;
        alerts.retain(|alert| alert["labels"]["alertname"] == ALERT);
        (alerts.len() == 2).then_some(alerts)
    });
    for severity in ["warning", "critical"] {
        assert!(firing.iter().any(|alert| alert["labels"] == labels(severity)), "{severity}: {firing:?}");
    }
    let sent_alert = notified(&fleet, &mut sent, &labels("critical"), "firing");
    let summary = sent_alert["annotations"]["summary"].as_str().unwrap();
    assert!(summary.contains(&client.0), "{summary}");
    let no_port = json!({
        "alertname": "ObserverNoLocalPort", "severity": "critical",
        "instance": instance(HOSTS[0]), "job": "observer", "netns": client.0,
    });
    notified(&fleet, &mut sent, &no_port, "firing");

    // After.
    drop(connections);
    notified(&fleet, &mut sent, &labels("critical"), "resolved");
    fleet.eventually("no such alert in Alertmanager", || {
        let alerts = alerts()?;
        alerts.iter().all(|alert| alert["labels"]["alertname"] != ALERT).then_some(())
    });
    assert_eq!(query("up{job=\"observer\"} == 1").unwrap().len(), HOSTS.len(), "all observers still answer");
}
