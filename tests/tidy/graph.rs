//! Finds which file of a crate names which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};

use crate::scanner::{Use, uses};

/// A module by its path from the crate's root.
pub type Module = Vec<String>;

/// The modules of one crate, and the paths that each names.
#[derive(Debug, Default)]
pub struct Graph {
    /// The `pub use` items of each module's file: the name, and the path it stands for.
    handed_on: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
    uses: BTreeMap<Module, Vec<Use>>,
}

impl Graph {
    /// Adds a file, whose tokens contain no tests.
    pub fn add(&mut self, module: Module, tokens: &[String]) {
        let all = uses(tokens);
        let handed_on = all.iter().filter(|one| one.is_public);
        let named = handed_on.map(|one| (one.name.clone(), one.path.clone())).collect();
        self.handed_on.insert(module.clone(), named);
        self.uses.insert(module, all.into_iter().filter(|one| !one.is_public).collect());
    }

    /// Returns the module whose file defines what `path` names in `module`; none outside the crate.
    fn target(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut rest = path;
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.clone(),
            first if self.is_child(module, first) => module.clone(),
            _ => return None,
        };
        if let "crate" | "self" = path[0].as_str() {
            rest = &rest[1..];
        }
        while rest.first().is_some_and(|word| word == "super") {
            base.pop();
            rest = &rest[1..];
        }
        while let Some(word) = rest.first().filter(|word| *word != "self") {
            if self.is_child(&base, word) {
                base.push(word.clone());
                rest = &rest[1..];
                continue;
            }
            // No folder is deeper than eight.
            let further = self.handed_on.get(&base).and_then(|names| names.get(word)).filter(|_| depth < 8);
            return Some(further.and_then(|path| self.target(&base, path, depth + 1)).unwrap_or(base));
        }
        Some(base)
    }

    fn is_child(&self, module: &Module, name: &str) -> bool {
        let mut child = module.clone();
        child.push(name.to_owned());
        self.uses.contains_key(&child)
    }

    /// Returns the modules whose files `module`'s file names. What a folder's own `mod.rs` defines, its files may use.
    fn named_by(&self, module: &Module) -> BTreeSet<Module> {
        let found = self.uses[module].iter().filter_map(|one| {
            let target = self.target(module, &one.path, 0)?;
            // A module imported as a whole: the items used through it show which file is named.
            let is_module = one.path.last().is_some_and(|last| Some(last) == target.last() || last == "self");
            let parts = one.parts.iter().filter(|_| is_module);
            let of_parts = parts.filter_map(|part| {
                let path: Vec<String> = one.path.iter().filter(|word| *word != "self").cloned().collect();
                self.target(module, &[path, vec![part.clone()]].concat(), 0)
            });
            let of_parts: Vec<Module> = of_parts.collect();
            Some(if is_module && !of_parts.is_empty() { of_parts } else { vec![target] })
        });
        found.flatten().filter(|target| target != module && !module.starts_with(target)).collect()
    }

    /// Returns the circles: groups of modules, each of which leads to every other.
    pub fn circles(&self) -> Vec<Vec<Module>> {
        let arrows: BTreeMap<&Module, BTreeSet<Module>> =
            self.uses.keys().map(|module| (module, self.named_by(module))).collect();
        let reach = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                for target in arrows.get(&module).into_iter().flatten() {
                    if seen.insert(target.clone()) {
                        next.push(target.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            arrows.keys().map(|module| (*module, reach(module))).collect();
        let (mut circles, mut placed) = (Vec::new(), BTreeSet::new());
        for (module, others) in &reached {
            let meets = |other: &&Module| others.contains(*other) && reached[*other].contains(*module);
            let circle: Vec<Module> = reached.keys().copied().filter(meets).cloned().collect();
            if circle.len() > 1 && placed.insert(circle.clone()) {
                circles.push(circle);
            }
        }
        circles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scanner::tokens;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut graph = Graph::default();
        for (name, text) in files {
            let module = name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            graph.add(module, &tokens(text));
        }
        let circles = graph.circles().into_iter();
        circles.map(|circle| circle.iter().map(|module| module.join("/")).collect()).collect()
    }

    #[test]
    fn files_that_name_one_another_are_a_circle() {
        let files = [
            ("a", "use super::b::B;"),
            ("b", "fn f() { crate::c::g() }"),
            ("c", "use crate::a::A;"),
            ("", ""),
        ];
        assert_eq!(circles(&files), [["a", "b", "c"]]);
        assert_eq!(circles(&files[..2]), [[""; 0]; 0]);
    }

    #[test]
    fn what_a_folder_hands_on_counts_where_it_is_defined() {
        let folder = ("a", "mod x; mod y; pub use x::X; pub use self::y::Y;");
        let files = [folder, ("a/x", "use super::Y;"), ("a/y", "use crate::a::X;"), ("", "mod a;")];
        assert_eq!(circles(&files), [["a/x", "a/y"]]);
        let files = [folder, ("a/x", "use super::Y;"), ("a/y", "use super::Z;"), ("", "mod a;")];
        assert_eq!(circles(&files), [[""; 0]; 0]);
    }

    #[test]
    fn a_module_imported_as_a_whole_counts_by_what_is_used_of_it() {
        let files = [
            ("a", "mod x; mod y; pub use x::X; pub fn f() {}"),
            ("a/x", "use crate::b; fn g() { b::h() }"),
            ("b", "use crate::a; fn h(_: a::X) {}"),
            ("", ""),
        ];
        assert_eq!(circles(&files), [["a/x", "b"]]);
    }
}
