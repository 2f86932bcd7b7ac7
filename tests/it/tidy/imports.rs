//! What a file reaches for: rooms by `use` trees, paths and macros, and the ways to write.

use std::collections::BTreeSet;
use std::path::Path;

use syn::visit::{self, Visit};

/// What was found in one file.
#[derive(Default)]
pub(super) struct Found {
    /// Names right below the crate's root.
    pub(super) rooms: BTreeSet<String>,
    /// Macros that the file puts at the crate's root; they belong to its room all the same.
    pub(super) exported: BTreeSet<String>,
    /// Uses of `Writer`, `.prepare(` and `.commit(`.
    pub(super) writing: BTreeSet<&'static str>,
    /// Imports that cannot be followed, and so are refused.
    pub(super) opaque: BTreeSet<&'static str>,
}

/// Parses one file of `src/`.
pub(super) fn of(path: &Path, text: &str) -> syn::Result<Found> {
    let parsed = syn::parse_file(text)?;
    let mut module: Vec<String> = path
        .strip_prefix("src")
        .unwrap()
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    if module == ["main"] {
        module.clear();
    }
    let mut visitor = Visitor { module, found: Found::default() };
    visitor.visit_file(&parsed);
    Ok(visitor.found)
}

struct Visitor {
    /// Where we are, from the crate's root.
    module: Vec<String>,
    found: Found,
}

impl Visitor {
    /// Notes one path, leaves of `use` trees included.
    fn note(&mut self, path: &[String]) {
        if path.iter().any(|name| name == "Writer") {
            self.found.writing.insert("`Writer`");
        }
        let Some(first) = path.first() else { return };
        let (mut base, mut rest) = match first.as_str() {
            "crate" | "strongroom" => (Vec::new(), &path[1..]),
            "self" | "super" => (self.module.clone(), path),
            _ => return,
        };
        while let Some((next, after)) = rest.split_first() {
            match next.as_str() {
                "self" => {}
                "super" => {
                    base.pop();
                }
                _ => break,
            }
            rest = after;
        }
        match base.first().or(rest.first()).map(String::as_str) {
            Some("*") => {
                self.found.opaque.insert("the crate's root is imported by glob: name each room");
            }
            Some(room) => {
                self.found.rooms.insert(room.to_owned());
            }
            None => {}
        }
    }

    fn note_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&with(path.ident.to_string()), &path.tree),
            syn::UseTree::Name(name) => self.note(&with(name.ident.to_string())),
            syn::UseTree::Rename(rename) => {
                let path = with(rename.ident.to_string());
                if path.iter().all(|name| ["crate", "self", "super"].contains(&name.as_str())) {
                    self.found.opaque.insert("a module is renamed on the way: name each room");
                }
                self.note(&path);
            }
            syn::UseTree::Glob(_) => self.note(&with("*".to_owned())),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(prefix, tree);
                }
            }
        }
    }

    /// Reads a macro's tokens as text: they need not be Rust.
    fn note_tokens(&mut self, tokens: &str) {
        // Spaces between words stay, so that `mut crate` does not become one word.
        let text = tokens.replace(" ::", "::").replace(":: ", "::").replace(" (", "(");
        let text = text.replace(". ", ".").replace(" .", ".");
        for (call, name) in [(".prepare(", "`.prepare(`"), (".commit(", "`.commit(`")] {
            if text.contains(call) {
                self.found.writing.insert(name);
            }
        }
        let in_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c: char| !in_path(c)) {
            let names: Vec<String> =
                word.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            if word.ends_with("::") && ["crate", "super"].iter().any(|root| names == [*root]) {
                self.found.opaque.insert("a macro imports a group: name each room");
            }
            self.note(&names);
        }
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        let exported = item.attrs.iter().any(|attr| attr.path().is_ident("macro_export"));
        if let Some(name) = item.ident.as_ref().filter(|_| exported) {
            self.found.exported.insert(name.to_string());
        }
        visit::visit_item_macro(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.note(&names);
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "prepare" {
            self.found.writing.insert("`.prepare(`");
        }
        if call.method == "commit" {
            self.found.writing.insert("`.commit(`");
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        // `Operation::commit(&op, …)`, or handed on as a function.
        let last = path.path.segments.last().filter(|_| path.path.segments.len() > 1);
        if last.is_some_and(|last| last.ident == "prepare") {
            self.found.writing.insert("`.prepare(`");
        }
        if last.is_some_and(|last| last.ident == "commit") {
            self.found.writing.insert("`.commit(`");
        }
        visit::visit_expr_path(self, path);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.note_tokens(&list.tokens.to_string());
        visit::visit_meta_list(self, list);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        self.note_tokens(&found.tokens.to_string());
        visit::visit_macro(self, found);
    }
}
