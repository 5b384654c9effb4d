//! The resolver where cgroup2 is mounted in other ways, or not at all: this test runs itself in mount and cgroup
//! namespaces of its own.

use std::{env, fs, process::Command};

use observer::{
    host::cgroup::Resolver,
    model::{service::CgroupId, units::Pid},
};

use crate::runtimes::{Network, Runc, cgroup2, inode, run, unique};

/// What the copy of this test is to find: "<pid> <id of the cgroup> <container> <whether by its cgroup>".
const WANTED: &str = "OBSERVER_TEST_WANTED";

/// How cgroup2 is shown, as a script; and whether a container's cgroup can be found there. `$CGROUP2` is the mount,
/// `$SPARE` another directory, `$NAME` the name of a cgroup to make.
const PLACES: [(&str, bool); 6] = [
    ("true", true),
    ("umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup", true),
    // One whose path has to be escaped, beside one of a part of the tree that does not contain it.
    (
        "mkdir \"$SPARE/a b\" && mount -t cgroup2 none \"$SPARE/a b\" && umount -R /sys/fs/cgroup && \
         mkdir \"$SPARE/a b/$NAME\" \"$SPARE/part\" && \
         mount --bind \"$SPARE/a b/$NAME\" \"$SPARE/part\"",
        true,
    ),
    // Hidden by another mount: the directory is no cgroup2.
    ("mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none \"$SPARE\"", true),
    // In a cgroup namespace whose root does not contain it.
    (
        "mkdir -p \"$CGROUP2/$NAME\" && echo $$ > \"$CGROUP2/$NAME/cgroup.procs\" && \
         exec unshare --cgroup sh -c 'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"' sh \"$@\"",
        true,
    ),
    ("umount -R /sys/fs/cgroup", false),
];

#[test]
fn a_container_is_found_however_cgroup2_is_mounted() {
    if let Some(wanted) = env::var_os(WANTED) {
        return find(wanted.to_str().unwrap());
    }
    let container = Runc::start("places", Network::Own, &["cat", "/dev/zero"]);
    let root = cgroup2();
    for (script, by_cgroup) in PLACES {
        let name = unique("place");
        let spare = tempfile::tempdir().unwrap();
        let wanted = format!("{} {} {} {by_cgroup}", container.pid, inode(&container.cgroup()), container.id);
        let mut copy = Command::new("unshare");
        copy.args(["--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"]);
        copy.arg(env::current_exe().unwrap());
        copy.args(["--exact", "places::a_container_is_found_however_cgroup2_is_mounted"]);
        copy.env(WANTED, wanted).env("CGROUP2", &root).env("SPARE", spare.path()).env("NAME", &name);
        let shown = run(&mut copy);
        assert!(shown.contains("1 passed"), "{script}: {shown}");
        let made = root.join(&name);
        assert!(!made.exists() || fs::remove_dir(&made).is_ok(), "{}", made.display());
    }
}

fn find(wanted: &str) {
    let words: Vec<&str> = wanted.split(' ').collect();
    let [pid, id, container, by_cgroup] = words[..] else { panic!("{wanted}") };
    let is = |service: Option<observer::model::service::Service>| {
        service.and_then(|it| it.container).is_some_and(|it| it.id.as_bytes() == container.as_bytes())
    };
    let mut resolver = Resolver::new();
    assert!(is(resolver.of_process(Pid(pid.parse().unwrap()))), "by its process");
    let found = resolver.resolve(CgroupId(id.parse().unwrap()));
    assert_eq!(is(found.clone()), by_cgroup == "true", "{found:?}");
}
