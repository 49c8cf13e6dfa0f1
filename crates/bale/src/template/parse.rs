//! From text to nodes.

use bale_fault::Result;
use serde_json::Value;

use super::{DEPTH, Expr, Node, invalid};

/// A part of the text: plain, or the inside of `{{ }}`.
enum Part {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, or a path such as `.A.B` and `$x.A`.
    Word(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Assign,
    Comma,
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let parts = parts(text)?;
    let mut parser = Parser { parts: parts.into_iter(), depth: 0 };
    match parser.nodes()? {
        (nodes, None) => Ok(nodes),
        (_, Some(word)) => Err(invalid(&format!("{{{{{word}}}}} without if, range or with"))),
    }
}

fn parts(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (after, trims) = match after.strip_prefix("- ") {
            Some(after) => (after, true),
            None => (after, false),
        };
        parts.push(Part::Text(plain(before, trim, trims)));
        let end = end_of(after).ok_or_else(|| invalid("{{ without }}"))?;
        let inside = &after[..end];
        trim = inside.ends_with(" -");
        let inside = inside.strip_suffix(" -").unwrap_or(inside).trim();
        if !(inside.starts_with("/*") && inside.ends_with("*/")) {
            parts.push(Part::Action(tokens(inside)?));
        }
        rest = &after[end + 2..];
    }
    parts.push(Part::Text(plain(rest, trim, false)));
    Ok(parts)
}

fn plain(text: &str, trim_start: bool, trim_end: bool) -> String {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Finds the `}}` that is in no string.
fn end_of(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '`' => quote = Some(letter),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn tokens(inside: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = inside.trim_start();
    while let Some(letter) = rest.chars().next() {
        let (token, length) = match letter {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Assign, 2),
            '`' => {
                let length = rest[1..].find('`').ok_or_else(|| invalid("a string without its end"))?;
                (Token::Literal(rest[1..=length].into()), length + 2)
            }
            '"' => string(rest)?,
            _ => word(rest)?,
        };
        tokens.push(token);
        // A path goes on behind a bracket: (index .Mounts 0).Type
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn string(text: &str) -> Result<(Token, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match values.next() {
        Some(Ok(value)) => Ok((Token::Literal(value.into()), values.byte_offset())),
        _ => Err(invalid("a string without its end")),
    }
}

fn word(text: &str) -> Result<(Token, usize)> {
    let ends = |c: char| c.is_whitespace() || "()|,:\"`".contains(c);
    let length = text.find(ends).unwrap_or(text.len());
    let word = &text[..length];
    let token = match word {
        "" => return Err(invalid(&format!("{text:?} is not understood"))),
        "true" | "false" => Token::Literal((word == "true").into()),
        "nil" => Token::Literal(Value::Null),
        _ => word
            .parse::<i64>()
            .map_or_else(|_| Token::Word(word.to_owned()), |number| Token::Literal(number.into())),
    };
    Ok((token, length))
}

struct Parser {
    parts: std::vec::IntoIter<Part>,
    depth: usize,
}

impl Parser {
    /// Reads up to the end, or to an `else` or `end`, which is returned.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>)> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(invalid("it is nested too deeply"));
        }
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.next() {
            let tokens = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Part::Action(tokens) => tokens,
            };
            match tokens.split_first() {
                None => return Err(invalid("{{}} holds nothing")),
                Some((Token::Word(word), rest)) => match word.as_str() {
                    "end" | "else" => {
                        self.depth -= 1;
                        return Ok((nodes, Some(closing(word, rest, &mut self.parts))));
                    }
                    "if" | "with" | "range" => nodes.push(self.block(word, rest)?),
                    _ => nodes.push(Node::Show(expression(&tokens)?)),
                },
                Some(_) => nodes.push(Node::Show(expression(&tokens)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    fn block(&mut self, word: &str, tokens: &[Token]) -> Result<Node> {
        let (names, tokens) = if word == "range" { variables(tokens) } else { (Vec::new(), tokens) };
        let over = expression(tokens)?;
        let open = || invalid(&format!("{{{{{word}}}}} without {{{{end}}}}"));
        let (body, closed) = self.nodes()?;
        let otherwise = match closed.as_deref() {
            Some("end") => Vec::new(),
            Some("else") => match self.nodes()? {
                (nodes, Some(closed)) if closed == "end" => nodes,
                _ => return Err(open()),
            },
            _ => return Err(open()),
        };
        Ok(match word {
            "if" => Node::If(over, body, otherwise),
            "with" => Node::With(over, body, otherwise),
            _ => Node::Range { names, over, body, otherwise },
        })
    }
}

/// `{{else if x}}` is `{{else}}{{if x}}` whose end closes both.
fn closing(word: &str, rest: &[Token], parts: &mut std::vec::IntoIter<Part>) -> String {
    if word == "else" && matches!(rest.first(), Some(Token::Word(inner)) if inner == "if") {
        let mut again = vec![Part::Action(rest.to_vec())];
        let mut depth = 0usize;
        for part in parts.by_ref() {
            let first = match &part {
                Part::Action(tokens) => tokens.first().cloned(),
                Part::Text(_) => None,
            };
            let ends = matches!(&first, Some(Token::Word(word)) if word == "end");
            depth += usize::from(
                matches!(&first, Some(Token::Word(w)) if matches!(w.as_str(), "if" | "with" | "range")),
            );
            again.push(part);
            if ends && depth == 0 {
                break;
            }
            depth -= usize::from(ends);
        }
        again.push(Part::Action(vec![Token::Word("end".to_owned())]));
        again.extend(parts.by_ref());
        *parts = again.into_iter();
    }
    word.to_owned()
}

/// Reads `$i, $x := …`.
fn variables(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let Some(at) = tokens.iter().position(|token| *token == Token::Assign) else {
        return (Vec::new(), tokens);
    };
    let names = tokens[..at].iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    });
    (names.collect(), &tokens[at + 1..])
}

fn expression(tokens: &[Token]) -> Result<Expr> {
    let mut at = 0;
    let found = pipeline(tokens, &mut at, 0)?;
    if at == tokens.len() { Ok(found) } else { Err(invalid("a ) too many")) }
}

/// `a b | c d` is `c d (a b)`.
fn pipeline(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Expr> {
    if depth > DEPTH {
        return Err(invalid("it is nested too deeply"));
    }
    let mut result = None;
    loop {
        let mut terms = Vec::new();
        while let Some(term) = term(tokens, at, depth)? {
            terms.push(term);
        }
        terms.extend(result.take());
        let value = command(terms)?;
        if tokens.get(*at) != Some(&Token::Pipe) {
            return Ok(value);
        }
        *at += 1;
        result = Some(value);
    }
}

fn term(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Option<Expr>> {
    let term = match tokens.get(*at) {
        None | Some(Token::Close | Token::Pipe) => return Ok(None),
        Some(Token::Literal(value)) => Expr::Literal(value.clone()),
        Some(Token::Word(word)) => named(word),
        Some(Token::Open) => {
            *at += 1;
            let inner = pipeline(tokens, at, depth + 1)?;
            if tokens.get(*at) != Some(&Token::Close) {
                return Err(invalid("a ( without its )"));
            }
            match tokens.get(*at + 1) {
                Some(Token::Word(path)) if path.starts_with('.') && path.len() > 1 => {
                    *at += 1;
                    let steps = path.split('.').filter(|step| !step.is_empty());
                    let steps = steps.map(|step| Expr::Literal(step.into()));
                    Expr::Call("index".to_owned(), std::iter::once(inner).chain(steps).collect())
                }
                _ => inner,
            }
        }
        Some(token) => return Err(invalid(&format!("{token:?} is out of place").to_lowercase())),
    };
    *at += 1;
    Ok(Some(term))
}

fn named(word: &str) -> Expr {
    let (variable, path) = match word.strip_prefix('$') {
        Some(rest) => {
            let end = rest.find('.').unwrap_or(rest.len());
            (Some(format!("${}", &rest[..end])), &rest[end..])
        }
        None if word.starts_with('.') => (None, word),
        None => return Expr::Call(word.to_owned(), Vec::new()),
    };
    let steps = path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect();
    Expr::Path { variable, steps }
}

fn command(mut terms: Vec<Expr>) -> Result<Expr> {
    if terms.is_empty() {
        return Err(invalid("a value is missing"));
    }
    let first = terms.remove(0);
    match first {
        Expr::Call(name, arguments) if arguments.is_empty() => Ok(Expr::Call(name, terms)),
        Expr::Path { variable: None, steps } if !terms.is_empty() && steps.len() == 1 => {
            Ok(Expr::Call(format!(".{}", steps[0]), terms))
        }
        value if terms.is_empty() => Ok(value),
        value => Err(invalid(&format!("{value:?} takes no arguments"))),
    }
}
