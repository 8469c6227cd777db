//! What stands behind `in`: a list, a query, a network.

use super::cursor::{Cursor, value_of};
use crate::{
    Diagnostic,
    plan::{Network, Plan, Predicate, Value},
};

impl Cursor<'_> {
    /// What stands behind `in`; `None` where that was a word to search for.
    pub(super) fn membership(&mut self, field: &str) -> Result<Option<Predicate>, Diagnostic> {
        let field = field.to_owned();
        if self.eat("(") {
            let values = self.values()?;
            return Ok(Some(Predicate::In { field, values }));
        }
        if self.eat("[") {
            let plan = self.nested()?;
            return Ok(Some(Predicate::InPlan { field, plan: Box::new(plan) }));
        }
        self.next();
        let rest = self.rest();
        let token = &rest[..rest.find(|c: char| c.is_whitespace() || "|)]".contains(c)).unwrap_or(rest.len())];
        let address = |c: char| c.is_ascii_digit() || c == '.' || c == '/';
        if token.contains(':') && token.contains('/') {
            return Err(self.complaint("only networks of IPv4 can be searched").help("write f in 10.0.0.0/8"));
        }
        if token.is_empty() || !token.contains('.') || !token.chars().all(address) {
            return Ok(None);
        }
        let (address, bits) = token.split_once('/').unwrap_or((token, "32"));
        let network =
            address.parse().ok().zip(bits.parse().ok()).and_then(|(address, bits)| Network::new(address, bits));
        let Some(network) = network else {
            return Err(self.complaint(format!("{token} is not a network")).help("write f in 10.0.0.0/8"));
        };
        self.at += token.len();
        Ok(Some(Predicate::Network { field, network }))
    }

    /// The values of a list behind its `(`.
    pub(super) fn values(&mut self) -> Result<Vec<Value>, Diagnostic> {
        let mut values = Vec::new();
        loop {
            self.bounded(&values)?;
            self.next();
            let (pieces, bare) = self.pieces(|c| !c.is_whitespace() && !"|()[]\"`*,".contains(c))?;
            match pieces.as_slice() {
                [text] if bare => values.push(value_of(text)),
                [text] => values.push(Value::Text(text.clone())),
                [] => return Err(self.expected("a value")),
                _ => return Err(self.complaint("a list holds values, not patterns").help("write f=a* or f=b*")),
            }
            if !self.eat(",") {
                self.expect(")", "a comma or the closing )")?;
                return Ok(values);
            }
        }
    }

    /// A query behind its `[`.
    pub(super) fn nested(&mut self) -> Result<Plan, Diagnostic> {
        let plan = self.deeper(Self::plan)?;
        self.expect("]", "the closing ]")?;
        Ok(plan)
    }
}
