//! The functions of expressions: one row of a table each.

/// One function of expressions.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: FunctionName,
    /// How it is written, first its own name, then those of other languages.
    pub words: &'static [&'static str],
    /// The least and the most arguments.
    pub arguments: (usize, usize),
    /// What it gives, for people.
    pub gives: &'static str,
}

macro_rules! functions {
    ($($name:ident [$($word:literal),+] $min:literal..$max:literal $gives:literal;)+) => {
        /// The functions that exist.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FunctionName { $(#[doc = $gives] $name,)+ }

        impl Function {
            /// All of them.
            pub const ALL: &'static [Function] = &[$(
                Function { name: FunctionName::$name, words: &[$($word),+], arguments: ($min, $max), gives: $gives },
            )+];
        }
    };
}

functions! {
    If ["if", "iff"] 3..3 "The second argument where the first is true, else the third.";
    Coalesce ["coalesce"] 1..16 "The first argument that has a value.";
    IsNull ["isnull"] 1..1 "Whether it has no value.";
    IsNotNull ["isnotnull", "exists"] 1..1 "Whether it has a value.";
    Lower ["lower"] 1..1 "The text in small letters.";
    Upper ["upper"] 1..1 "The text in capital letters.";
    Length ["len", "length", "strlen"] 1..1 "How many characters the text has.";
    Trim ["trim"] 1..1 "The text without white space around it.";
    Substring ["substr", "substring", "mid"] 2..3 "The text from a character on, counted from 1; the third argument is how many.";
    Replace ["replace"] 3..3 "The text with every occurrence of the second argument replaced by the third.";
    Concat ["concat"] 1..16 "The texts one after another.";
    Split ["split_part"] 3..3 "The n-th part of a text between separators, counted from 1.";
    Contains ["contains"] 2..2 "Whether the text contains the second argument.";
    StartsWith ["starts_with", "startswith"] 2..2 "Whether the text begins with the second argument.";
    EndsWith ["ends_with", "endswith"] 2..2 "Whether the text ends with the second argument.";
    Extract ["extract", "regex_extract"] 2..2 "What the first group of a regular expression finds.";
    Text ["text", "tostring"] 1..1 "The value as text.";
    Number ["num", "tonumber", "todouble"] 1..1 "The value as a number, none where it is not one.";
    Integer ["int", "toint", "tolong"] 1..1 "The value as a whole number, none where it is not one.";
    Round ["round"] 1..2 "The number rounded to so many decimals, none if not given.";
    Absolute ["abs"] 1..1 "The number without its sign.";
    Least ["least"] 2..16 "The smallest argument.";
    Greatest ["greatest"] 2..16 "The largest argument.";
    Bin ["bin", "bucket"] 2..2 "The begin of the interval of that width which holds the time.";
    Now ["now"] 0..0 "When the query runs.";
}

impl FunctionName {
    /// The function's row.
    pub fn function(self) -> &'static Function {
        let found = Function::ALL.iter().find(|function| function.name == self);
        found.unwrap_or(&Function::ALL[0])
    }

    /// How it is written.
    pub fn as_str(self) -> &'static str {
        self.function().words[0]
    }

    /// The function that a word names, in any case of letters.
    pub fn of(word: &str) -> Option<Self> {
        let named = |function: &&Function| function.words.iter().any(|name| name.eq_ignore_ascii_case(word));
        Function::ALL.iter().find(named).map(|function| function.name)
    }
}
