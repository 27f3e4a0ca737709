//! What one Rust file says, as far as the rules ask.

use std::iter::Peekable;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// A path such as `crate::storage::Key` with `super` and nested uses resolved.
pub struct Named {
    pub line: usize,
    pub path: String,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// The first one.
    pub line: usize,
    pub lines: usize,
    /// From `fn` to the closing brace; `::` or `->` is one.
    pub tokens: usize,
    pub in_test: bool,
}

/// One Rust file, read into what the rules ask for.
#[derive(Default)]
pub struct Facts {
    pub named: Vec<Named>,
    pub keywords: Vec<(usize, String)>,
    pub functions: Vec<Function>,
    /// Macro calls, with their names.
    pub macros: Vec<(usize, String)>,
    pub ignored_tests: Vec<usize>,
    pub detached: Vec<(usize, String)>,
    /// Files or modules that belong to tests alone: `name` or the `#[path]` of it.
    pub test_modules: Vec<String>,
}

type Tokens = Peekable<proc_macro2::token_stream::IntoIter>;

impl Facts {
    /// Reads `text`, which is the module `module` (such as `postgres::layout`; empty for the root).
    pub fn read(text: &str, module: &str) -> Self {
        let stream: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("module \"{module}\": {error}"));
        let mut facts = Self::default();
        let module: Vec<String> = module
            .split("::")
            .filter(|part| !part.is_empty())
            .map(str::to_string)
            .collect();
        facts.walk(stream, &module, false);
        facts
    }

    fn walk(&mut self, stream: TokenStream, module: &[String], in_test: bool) {
        self.find_detached(&stream);
        let mut tokens = stream.into_iter().peekable();
        let mut test_item = false;
        let mut path_attribute = None;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let Some(attribute) = next_group(&mut tokens, Delimiter::Bracket) else {
                        continue;
                    };
                    let text = attribute.stream().to_string().replace(' ', "");
                    test_item |= text == "cfg(test)";
                    if text == "ignore" || text.starts_with("ignore=") {
                        self.ignored_tests.push(line_of(&attribute));
                    }
                    if let Some(path) = text.strip_prefix("path=") {
                        path_attribute = Some(path.trim_matches('"').to_string());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    (test_item, path_attribute) = (false, None)
                }
                TokenTree::Group(group) => {
                    // `pub(in crate::x)` names the module's own ancestors, which is no import.
                    if !group.stream().to_string().starts_with("in crate") {
                        self.walk(group.stream(), module, in_test || test_item);
                    }
                    if group.delimiter() == Delimiter::Brace {
                        (test_item, path_attribute) = (false, None);
                    }
                }
                TokenTree::Ident(ident) if ident == "mod" => {
                    let Some(TokenTree::Ident(name)) = tokens.next() else {
                        continue;
                    };
                    if let Some(body) = next_group(&mut tokens, Delimiter::Brace) {
                        let inner: Vec<String> =
                            module.iter().cloned().chain([name.to_string()]).collect();
                        self.walk(body.stream(), &inner, in_test || test_item);
                        (test_item, path_attribute) = (false, None);
                    } else if test_item {
                        self.test_modules
                            .push(path_attribute.take().unwrap_or_else(|| name.to_string()));
                    }
                }
                TokenTree::Ident(ident) if ident == "fn" => {
                    self.function(&ident, tokens.clone(), in_test || test_item)
                }
                TokenTree::Ident(ident) => {
                    self.ident(ident, &mut tokens, module, in_test || test_item)
                }
                _ => {}
            }
        }
    }

    /// A function's length, from `fn` to its closing brace; types such as `fn(u8)` and declarations have none.
    fn function(&mut self, start: &proc_macro2::Ident, mut rest: Tokens, in_test: bool) {
        let Some(TokenTree::Ident(name)) = rest.peek().cloned() else {
            return;
        };
        let mut tokens = 1;
        for token in rest {
            tokens += weight(&token);
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ';' => return,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let line = start.span().start().line;
                    let lines = group.span_close().end().line - line + 1;
                    self.functions.push(Function {
                        name: name.to_string(),
                        line,
                        lines,
                        tokens,
                        in_test,
                    });
                    return;
                }
                _ => {}
            }
        }
    }

    fn ident(
        &mut self,
        ident: proc_macro2::Ident,
        tokens: &mut Tokens,
        module: &[String],
        in_test: bool,
    ) {
        let line = ident.span().start().line;
        let text = ident.to_string();
        if is_punct(tokens, '!') {
            self.macros.push((line, text.clone()));
        }
        if in_test {
            return;
        }
        if text == "async" || text == "await" {
            self.keywords.push((line, text));
        } else if is_punct(tokens, ':') {
            self.path(vec![text], line, tokens, module);
        }
    }

    /// Follows `a::b::{c, d::e}` to its ends.
    fn path(
        &mut self,
        mut parts: Vec<String>,
        line: usize,
        tokens: &mut Tokens,
        module: &[String],
    ) {
        while is_path_separator(tokens) {
            tokens.nth(1);
            match tokens.peek() {
                Some(TokenTree::Ident(ident)) => {
                    parts.push(ident.to_string());
                    tokens.next();
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let mut inner = group.stream().into_iter().peekable();
                    tokens.next();
                    while let Some(token) = inner.next() {
                        if let TokenTree::Ident(ident) = token {
                            let mut longer = parts.clone();
                            longer.push(ident.to_string());
                            self.path(longer, ident.span().start().line, &mut inner, module);
                            if matches!(inner.peek(), Some(TokenTree::Ident(word)) if word == "as")
                            {
                                inner.nth(1);
                            }
                        }
                    }
                    return;
                }
                Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => parts.push("*".into()),
                _ => break,
            }
        }
        self.named.push(Named {
            line,
            path: resolve(&parts, module),
        });
    }

    /// Statements that begin with a spawn and end with it.
    fn find_detached(&mut self, stream: &TokenStream) {
        let mut statement: Vec<TokenTree> = Vec::new();
        for token in stream.clone() {
            let ends = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ';');
            let block =
                matches!(&token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
            statement.push(token);
            if ends {
                let text: String = statement.iter().take(12).map(ToString::to_string).collect();
                let call = text.trim_start_matches("let_=");
                let spawns = [
                    "tokio::spawn(",
                    "tokio::task::spawn(",
                    "tokio::task::spawn_blocking(",
                    "task::spawn(",
                ];
                let plain = !statement.iter().any(|token| token.to_string() == "await");
                if plain && spawns.iter().any(|spawn| call.starts_with(spawn)) {
                    self.detached
                        .push((statement[0].span().start().line, call.to_string()));
                }
            }
            if ends || block {
                statement.clear();
            }
        }
    }
}

/// How many tokens that is. Puncts that make one operator are one, and so is a lifetime.
fn weight(token: &TokenTree) -> usize {
    match token {
        TokenTree::Group(group) => {
            let inside: usize = group.stream().into_iter().map(|token| weight(&token)).sum();
            inside
                + if group.delimiter() == Delimiter::None {
                    0
                } else {
                    2
                }
        }
        TokenTree::Punct(punct) => usize::from(punct.spacing() == Spacing::Alone),
        TokenTree::Ident(_) | TokenTree::Literal(_) => 1,
    }
}

fn line_of(group: &Group) -> usize {
    group.span_open().start().line
}

fn next_group(tokens: &mut Tokens, delimiter: Delimiter) -> Option<Group> {
    match tokens.peek() {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => {
            let group = group.clone();
            tokens.next();
            Some(group)
        }
        _ => None,
    }
}

fn is_punct(tokens: &mut Tokens, wanted: char) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &Tokens) -> bool {
    let mut ahead = tokens.clone();
    is_punct(&mut ahead, ':') && ahead.next().is_some() && is_punct(&mut ahead, ':')
}

/// `super` and `self` become the modules they stand for.
fn resolve(parts: &[String], module: &[String]) -> String {
    let mut resolved: Vec<&str> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part.as_str() {
            "self" if index == 0 => {
                resolved = std::iter::once("crate")
                    .chain(module.iter().map(|m| &**m))
                    .collect()
            }
            "super" if index == 0 => {
                let above = module.len().saturating_sub(1);
                resolved = std::iter::once("crate")
                    .chain(module[..above].iter().map(|m| &**m))
                    .collect();
            }
            "super" => drop(resolved.pop()),
            "self" => {}
            other => resolved.push(other),
        }
    }
    resolved.join("::")
}
