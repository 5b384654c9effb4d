//! Who holds sockets and listeners.

use super::scenario::check;

#[test]
fn owners_come_from_connect_and_accept_and_the_listener_stands_for_what_is_not_accepted() {
    check(
        "l 10.0.0.9:80>0.0.0.0:0 closed>listen by 3 nginx
         a 10.0.0.9:80>10.0.0.5:1 syn_received>established
         b 10.0.0.9:80>10.0.0.5:2 syn_received>established
         c 10.0.0.9:0>10.0.0.7:5432 closed>syn_sent by 7 app
         show owners
         a accepted established by 4 worker
         show owners
         c syn_sent>closed
         show owners",
        "10.0.0.9:80 shown nginx/3 listens nginx/3 orphans 0
         10.0.0.9 app/7:1 orphans 0
         10.0.0.9:80 worker/4:1 listens nginx/3 orphans 0
         10.0.0.9 app/7:1 orphans 0
         10.0.0.9:80 worker/4:1 listens nginx/3 orphans 0
         10.0.0.9 shown app/7 orphans 0",
    );
}

#[test]
fn an_fd_scan_gives_sockets_to_their_owners() {
    check(
        "scan
         end
         c 10.0.0.9:1>10.0.0.7:1 closed>syn_sent by 7 parent
         d 10.0.0.9:2>10.0.0.7:1 closed>syn_sent by 7 parent
         e 10.0.0.9:3>10.0.0.7:1 closed>syn_sent by 7 parent
         f 10.0.0.9:4>10.0.0.7:1 syn_sent>established
         files
         c owned by 7 parent
         c owned by 8 child
         d owned by 8 child
         d owned by 9 other
         f owned by 8 child
         files end
         show owners",
        // c: the parent still holds it, the child too. d: the first that holds it, and another. e: nobody does. f: was not
        // known.
        "10.0.0.9 child/8:2+1 parent/7:1 other/9:0+1 orphans 0",
    );
}

#[test]
fn an_fd_scan_learns_new_names_and_all_owners_of_a_listener() {
    check(
        "scan
         end
         l 10.0.0.9:80>0.0.0.0:0 closed>listen by 3 nginx
         a 10.0.0.9:80>10.0.0.5:1 syn_received>established
         a accepted established by 4 worker
         c 10.0.0.9:1>10.0.0.7:1 closed>syn_sent by 7 app
         files
         l owned by 3 master
         l owned by 4 worker
         l owned by 4 worker
         a owned by 4 worker
         c owned by 7 renamed
         c owned by 7 renamed
         files end
         show owners
         files
         l owned by 4 worker
         a owned by 4 worker
         c owned by 7 renamed
         files end
         show owners",
        "10.0.0.9:80 worker/4:1 listens master/3 listens worker/4 orphans 0
         10.0.0.9 renamed/7:1 orphans 0
         10.0.0.9:80 worker/4:1 listens worker/4 orphans 0
         10.0.0.9 renamed/7:1 orphans 0",
    );
}

#[test]
fn a_process_outside_keeps_what_events_gave_it_because_no_fd_scan_shows_it() {
    check(
        "c 10.0.0.9:1>10.0.0.7:1 closed>syn_sent by 2147483655 outside
         d 10.0.0.9:2>10.0.0.7:1 closed>syn_sent by 7 inside
         l 10.0.0.9:80>0.0.0.0:0 closed>listen by 2147483656 server
         files
         files end
         show owners",
        // Two processes with the number 7 are two.
        "10.0.0.9 outside/host:7:1 orphans 0
         10.0.0.9:80 shown server/host:8 listens server/host:8 orphans 0",
    );
}

#[test]
fn a_closed_socket_is_an_orphan_until_it_ends() {
    check(
        "c 10.0.0.9:1>10.0.0.7:1 closed>syn_sent by 7 app
         d 10.0.0.9:2>10.0.0.7:1 closed>syn_sent by 7 app
         scan
         c found fin_wait_1 orphan
         d found established
         end
         show owners
         c fin_wait_1>closed
         show owners",
        "10.0.0.9 app/7:1 orphans 1
         10.0.0.9 app/7:1 orphans 0",
    );
}

#[test]
fn an_owner_that_gets_a_socket_during_the_fd_scan_keeps_it() {
    check(
        "files
         c 10.0.0.9:1>10.0.0.7:1 closed>syn_sent by 7 app
         files end
         show owners",
        "10.0.0.9 app/7:1 orphans 0",
    );
}

#[test]
fn an_accept_that_no_hook_saw_counts_when_an_fd_scan_finds_its_process() {
    check(
        "l 10.0.0.9:80>0.0.0.0:0 closed>listen by 3 nginx
         a 10.0.0.9:80>10.0.0.5:1 syn_received>established
         b 10.0.0.9:80>10.0.0.5:2 syn_received>established
         c 10.0.0.9:80>10.0.0.5:3 syn_received>established
         a accepted established by 4 worker
         files
         l owned by 3 nginx
         a owned by 5 child
         b owned by 5 child
         files end
         show owners
         b accepted established by 5 child
         show owners",
        // a: seen, then passed on. b: reported later than found. c: still in the accept queue.
        "10.0.0.9:80 child/5:2 listens nginx/3 orphans 0
         unseen accepts 1
         10.0.0.9:80 child/5:2 listens nginx/3 orphans 0",
    );
}
