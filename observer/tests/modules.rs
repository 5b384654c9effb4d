//! Dependencies between modules form no cycle: whoever reads one needs to know only what lies below it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{UseTree, visit::Visit};

/// A module by its path from the crate's root, which has the empty one.
type Module = Vec<String>;

/// Which module names which, by its file.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// The modules of a crate that have a file, each with its syntax tree.
fn modules(root: &Path, crate_file: &str) -> BTreeMap<Module, syn::File> {
    let mut modules = BTreeMap::new();
    let mut queue = vec![(root.join(crate_file), Module::new(), root.to_owned())];
    while let Some((file, module, folder)) = queue.pop() {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
        let tree = syn::parse_file(&text).unwrap_or_else(|error| panic!("parse {}: {error}", file.display()));
        for item in &tree.items {
            let syn::Item::Mod(child) = item else { continue };
            if child.content.is_some() || is_test(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            let (flat, nested) = (folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs"));
            let file = if flat.is_file() { flat } else { nested };
            let path = [module.clone(), vec![name.clone()]].concat();
            queue.push((file, path, folder.join(name)));
        }
        modules.insert(module, tree);
    }
    modules
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .any(|it| it.path().is_ident("cfg") && it.parse_args::<syn::Path>().is_ok_and(|it| it.is_ident("test")))
}

/// Collects the paths that one module names.
struct Paths<'a> {
    of: &'a Module,
    found: Vec<Vec<String>>,
}

impl Paths<'_> {
    /// A path that starts in this crate, from the crate's root.
    fn add(&mut self, path: &[String]) {
        let mut absolute = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self") => self.of.clone(),
            Some("super") => self.of[..self.of.len().saturating_sub(1)].to_vec(),
            _ => return,
        };
        for part in &path[1..] {
            match part.as_str() {
                "super" => drop(absolute.pop()),
                _ => absolute.push(part.clone()),
            }
        }
        self.found.push(absolute);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) if name.ident == "self" => self.add(prefix),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(name) => self.add(&with(&name.ident)),
            UseTree::Glob(_) => self.add(prefix),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        // Tests stand in the file that they test, and may name everything.
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&parts);
        syn::visit::visit_path(self, path);
    }
}

/// An edge for each module that another one names. A module and those within it are one family: what a parent offers its
/// children, and gathers from them, is no dependency between concerns.
fn graph(root: &Path, crate_file: &str) -> Graph {
    let modules = modules(root, crate_file);
    let mut graph = Graph::new();
    for (module, tree) in &modules {
        let mut paths = Paths { of: module, found: Vec::new() };
        paths.visit_file(tree);
        let named = paths.found.iter().filter_map(|path| {
            // The longest part of the path that is a module; the rest is an item of it.
            let target =
                (1..=path.len()).rev().map(|length| &path[..length]).find(|part| modules.contains_key(*part))?;
            let is_family = target.starts_with(module) || module.starts_with(target);
            (!is_family).then(|| target.to_vec())
        });
        graph.insert(module.clone(), named.collect());
    }
    graph
}

/// Modules that lead to each other: sets of more than one, each sorted.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let reach = |from: &Module| {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![from]);
        while let Some(module) = queue.pop() {
            for next in graph.get(module).into_iter().flatten() {
                if seen.insert(next) {
                    queue.push(next);
                }
            }
        }
        seen
    };
    let reachable: BTreeMap<&Module, BTreeSet<&Module>> = graph.keys().map(|module| (module, reach(module))).collect();
    let mut found = BTreeSet::new();
    for (module, others) in &reachable {
        let cycle: Vec<String> =
            others.iter().filter(|other| reachable[**other].contains(*module)).map(|it| it.join("::")).collect();
        if cycle.len() > 1 {
            found.insert(cycle);
        }
    }
    found.into_iter().collect()
}

#[track_caller]
fn assert_no_cycle(folder: &str, crate_file: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(folder);
    let graph = graph(&root, crate_file);
    assert!(graph.len() > 5, "{folder}: only {} modules were found", graph.len());
    let cycles = cycles(&graph);
    let edges = |cycle: &Vec<String>| {
        let is_in = |module: &Module| cycle.contains(&module.join("::"));
        let lines = graph.iter().filter(|(from, _)| is_in(from)).flat_map(|(from, to)| {
            to.iter().filter(|to| is_in(to)).map(|to| format!("  {} -> {}", from.join("::"), to.join("::")))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let shown: Vec<String> = cycles.iter().map(|cycle| format!("{} modules:\n{}", cycle.len(), edges(cycle))).collect();
    assert!(cycles.is_empty(), "cycles in {folder}:\n{}", shown.join("\n"));
}

#[test]
fn the_modules_of_the_program_form_no_cycle() {
    assert_no_cycle("observer/src", "lib.rs");
}

#[test]
fn the_modules_of_the_kernel_side_form_no_cycle() {
    assert_no_cycle("observer-ebpf/src", "main.rs");
}

#[test]
fn the_modules_of_the_build_tasks_form_no_cycle() {
    assert_no_cycle("xtask/src", "main.rs");
}

#[test]
fn a_cycle_is_found_with_all_that_is_in_it() {
    let module = |name: &str| vec![name.to_owned()];
    let edge = |from: &str, to: &[&str]| (module(from), to.iter().map(|it| module(it)).collect());
    let graph = Graph::from([edge("a", &["b"]), edge("b", &["c", "d"]), edge("c", &["a"]), edge("d", &[])]);
    assert_eq!(cycles(&graph), [["a", "b", "c"].map(str::to_owned)]);
}
