//! Findings from events and scans.

use super::scenario::check;

#[test]
fn bind_before_connect_is_attributed_to_who_binds() {
    check(
        "range 40000-40099
         scan
         end
         a 10.0.0.5:40000>10.0.0.9:81 closed>syn_sent by 7 binder explicit
         b 10.0.0.5:40001>10.0.0.9:81 closed>syn_sent by 7 binder explicit
         c 10.0.0.5:40002>10.0.0.9:81 closed>syn_sent by 8 other explicit
         d 10.0.0.5:40050>10.0.0.9:81 closed>syn_sent by 9 innocent
         scan
         a found established explicit
         b found established explicit
         c found established explicit
         d found established autobound
         t 10.0.0.5:40003>10.0.0.9:82 found tw:time_wait explicit
         end
         show sentences",
        "Sockets of binder (7) and other (8) were bound before connect() from 10.0.0.5.",
    );
}

/// So many lines, one a client.
fn clients(count: u32, line: &str) -> String {
    (0..count).map(|n| line.replace("ID", &format!("c{n}")).replace("PORT", &(40_000 + n).to_string()) + "\n").collect()
}

#[test]
fn close_wait_that_stays_is_a_leak_of_its_owner() {
    let open = clients(10, "ID 10.0.0.5:PORT>10.0.0.9:81 closed>syn_sent by 7 app");
    let established = clients(10, "ID syn_sent>established");
    let closed = clients(10, "ID established>close_wait");
    let found = clients(10, "ID found close_wait autobound");
    let scan = format!("scan\n{found}end\nshow findings\n");
    let scenario = format!("scan\nend\n{open}{established}{closed}tick 29\n{scan}tick 1\n{scan}");
    check(&scenario, "close_wait_leak: 10 sockets stay in CLOSE_WAIT, the oldest for 30 s or longer");
    // Each is closed in time: never one for long.
    let ends = clients(10, "ID 10.0.0.5:PORT>10.0.0.9:81 close_wait>closed");
    let short = format!("{open}{established}{closed}tick 5\n{scan}{ends}").repeat(20);
    check(&format!("scan\nend\n{short}"), "");
}

#[test]
fn a_destination_that_does_not_answer_is_found_until_it_does() {
    let open = clients(8, "ID 10.0.0.5:PORT>10.0.0.9:81 closed>syn_sent by 7 app");
    let waiting = clients(8, "ID found syn_sent autobound");
    let established = clients(8, "ID syn_sent>established");
    let found = clients(8, "ID found established autobound");
    let answered = format!("scan\nend\n{open}tick 3\nscan\n{waiting}end\nshow findings\n{established}");
    check(&format!("{answered}tick 9\nscan\n{found}end\nshow findings"), "");
    let silent = format!("scan\nend\n{open}tick 7\nscan\n{waiting}end\nshow findings\n{established}");
    check(
        &format!("{silent}scan\n{found}end\nshow findings"),
        "no_answer: 8 connect() calls of app (7) from 10.0.0.5 are in SYN_SENT, the oldest for 7 s or longer",
    );
}
