//! Expressions over one row, read by precedence.

use super::cursor::{Cursor, in_name, value_of};
use crate::{
    Comparison, Diagnostic, nearest,
    plan::{Function, FunctionName, Operator, Term, Value},
};

impl Cursor<'_> {
    /// One expression; it ends where no operator follows.
    pub(super) fn term(&mut self) -> Result<Term, Diagnostic> {
        self.deeper(|cursor| cursor.binary(1))
    }

    /// An expression of operators that bind at least so closely.
    fn binary(&mut self, least: u8) -> Result<Term, Diagnostic> {
        let mut left = self.operand()?;
        loop {
            let begin = self.at;
            if least <= 4 && self.eat_word("in") {
                self.expect("(", "the ( of a list")?;
                self.count()?;
                left = Term::In { term: Box::new(left), values: self.values()? };
                continue;
            }
            let Some(op) = self.binary_operator().filter(|op| op.rank() >= least) else {
                self.at = begin;
                return Ok(left);
            };
            self.count()?;
            let right = self.binary(op.rank() + 1)?;
            left = Term::Binary { op, left: Box::new(left), right: Box::new(right) };
        }
    }

    fn binary_operator(&mut self) -> Option<Operator> {
        use Comparison::{Above, AtLeast, AtMost, Below, Equal, NotEqual};
        const SYMBOLS: [(&str, Operator); 17] = [
            ("||", Operator::Or),
            ("&&", Operator::And),
            ("==", Operator::Compare(Equal)),
            ("=~", Operator::Matches),
            ("!=", Operator::Compare(NotEqual)),
            ("<>", Operator::Compare(NotEqual)),
            (">=", Operator::Compare(AtLeast)),
            ("<=", Operator::Compare(AtMost)),
            ("=", Operator::Compare(Equal)),
            (">", Operator::Compare(Above)),
            ("<", Operator::Compare(Below)),
            ("~", Operator::Matches),
            ("+", Operator::Plus),
            ("-", Operator::Minus),
            ("*", Operator::Times),
            ("/", Operator::By),
            ("%", Operator::Modulo),
        ];
        if self.eat_word("or") {
            return Some(Operator::Or);
        }
        if self.eat_word("and") {
            return Some(Operator::And);
        }
        let (symbol, op) = SYMBOLS.iter().find(|(symbol, _)| self.rest().starts_with(symbol))?;
        self.at += symbol.len();
        Some(*op)
    }

    fn operand(&mut self) -> Result<Term, Diagnostic> {
        if self.eat_word("not") || self.eat("!") {
            self.count()?;
            let inner = self.deeper(|cursor| cursor.binary(3))?;
            return Ok(Term::Not(Box::new(inner)));
        }
        match self.next() {
            Some('(') => {
                self.at += 1;
                let inner = self.term()?;
                self.expect(")", "the closing )")?;
                Ok(inner)
            }
            Some(c) if c.is_ascii_digit() => self.number(),
            Some('-') => {
                if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) {
                    return self.number();
                }
                self.at += 1;
                self.count()?;
                let inner = self.deeper(Self::operand)?;
                Ok(Term::Minus(Box::new(inner)))
            }
            Some('"' | '\'') => Ok(Term::Value(Value::Text(self.quoted()?.unwrap_or_default()))),
            _ => self.named(),
        }
    }

    /// A number with or without a unit; one with a unit has no sign.
    fn number(&mut self) -> Result<Term, Diagnostic> {
        let rest = self.rest();
        let mut end = rest.find(|c: char| !in_name(c) && c != '-').unwrap_or(rest.len());
        // A sign belongs to the number in front or behind an exponent.
        for (i, _) in rest[..end].match_indices('-').filter(|(i, _)| *i > 0) {
            let before = &rest[..i];
            let exponent = before.ends_with(['e', 'E'])
                && before[..i - 1].trim_start_matches('-').bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if !exponent {
                end = i;
                break;
            }
        }
        match value_of(&rest[..end]) {
            Value::Text(text) => Err(self
                .complaint(format!("{text} is not a number"))
                .help("units are ns us ms s m h d w and B KB MB GB KiB MiB GiB; a text stands in quotes")),
            value => {
                self.at += end;
                Ok(Term::Value(value))
            }
        }
    }

    /// A field, `true`, `false`, or a call.
    fn named(&mut self) -> Result<Term, Diagnostic> {
        let ticks = self.next() == Some('`');
        let begin = self.at;
        let word = self.word();
        if !ticks && super::cursor::RESERVED[..8].iter().any(|keyword| keyword.eq_ignore_ascii_case(word)) {
            return Err(self.expected("a field or a value").help(format!("write `{word}` for a field of that name")));
        }
        let Some(name) = self.name(false)? else {
            return Err(self.expected("a field or a value"));
        };
        if !ticks && self.touching() == Some('(') {
            self.at += 1;
            return self.call(&name, begin);
        }
        Ok(match name.as_str() {
            "true" if !ticks => Term::Value(Value::Boolean(true)),
            "false" if !ticks => Term::Value(Value::Boolean(false)),
            _ => Term::Field(name),
        })
    }

    fn call(&mut self, name: &str, begin: usize) -> Result<Term, Diagnostic> {
        let Some(function) = FunctionName::of(name) else {
            let found = self.complaint_at(begin, format!("there is no function {name}"));
            let words = Function::ALL.iter().flat_map(|function| function.words.iter().copied());
            return Err(match nearest(name, words) {
                Some(meant) => found.help(format!("did you mean {meant}?")),
                None if crate::plan::MeasureFunction::of(name).is_some() => {
                    found.help(format!("{name} is an aggregate: compute it with stats, and name it with as"))
                }
                None => {
                    let names: Vec<&str> = Function::ALL.iter().map(|function| function.words[0]).collect();
                    found.help(format!("the functions are {}", names.join(", ")))
                }
            });
        };
        self.count()?;
        let mut arguments = Vec::new();
        if !self.eat(")") {
            loop {
                self.bounded(&arguments)?;
                arguments.push(self.term()?);
                if !self.eat(",") {
                    self.expect(")", "a comma or the closing )")?;
                    break;
                }
            }
        }
        let (least, most) = function.function().arguments;
        if arguments.len() < least || arguments.len() > most {
            let takes = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(self
                .complaint_at(begin, format!("{name} takes {takes} arguments, not {}", arguments.len()))
                .help(function.function().gives));
        }
        Ok(Term::Call { function, arguments })
    }
}
