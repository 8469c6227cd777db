use datafusion::{
    logical_expr::Expr,
    physical_expr::expressions::{cast, col, lit},
    prelude::SessionContext,
};

use super::*;

/// What a condition in SQL needs.
async fn of(sql: &str) -> Option<Predicate> {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    let fields = vec![
        Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        Field::new("_msg", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
    ];
    let schema = datafusion::common::DFSchema::try_from(Schema::new(fields)).unwrap();
    let context = SessionContext::new();
    let expr: Expr = context.parse_sql_expr(sql, &schema).unwrap();
    needs(&context.create_physical_expr(expr, &schema).unwrap())
}

fn contains(text: &str, any_case: bool) -> Predicate {
    Predicate::Contains { column: "_msg".to_owned(), text: text.to_owned(), any_case }
}

fn word(text: &str, any_case: bool) -> Predicate {
    Predicate::Word { column: "_msg".to_owned(), text: text.to_owned(), any_case }
}

fn number(op: Comparison, value: Scalar) -> Predicate {
    let column = if matches!(value, Scalar::Float(_)) { "x" } else { "n" };
    Predicate::Compare { column: column.to_owned(), op, value }
}

#[tokio::test]
async fn conditions_say_what_they_need() {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let int = Scalar::Int;
    for (sql, expected) in [
        ("n = 5", Some(number(Equal, int(5)))),
        ("5 < n", Some(number(Greater, int(5)))),
        ("n <> 5", None),
        ("n + 1 = 5", None),
        ("n >= 5 AND n < 9", Some(Predicate::All(vec![number(GreaterOrEqual, int(5)), number(Less, int(9))]))),
        ("n >= 5 AND upper(_msg) = 'A'", Some(number(GreaterOrEqual, int(5)))),
        ("n = 5 OR _msg = upper(_msg)", None),
        ("n = 5 OR n > 7", Some(Predicate::Any(vec![number(Equal, int(5)), number(Greater, int(7))]))),
        ("n IN (1, 2)", Some(Predicate::OneOf { column: "n".to_owned(), values: vec![int(1), int(2)] })),
        ("n NOT IN (1, 2)", None),
        ("x < 1.5", Some(number(Less, Scalar::Float(1.5)))),
        // The zeros are two and one.
        ("x < 0.0", Some(number(LessOrEqual, Scalar::Float(0.0)))),
        ("n IS NULL", Some(Predicate::IsNull { column: "n".to_owned() })),
        ("n IS NOT NULL", None),
        ("_msg LIKE '%broken pipe%'", Some(contains("broken pipe", false))),
        ("_msg LIKE 'a%b_c\\%'", Some(Predicate::All(["a", "b", "c%"].map(|part| contains(part, false)).into()))),
        ("_msg ILIKE '%Broken%'", Some(contains("Broken", true))),
        ("_msg NOT LIKE '%a%'", None),
        ("contains(_msg, 'etRespon')", Some(contains("etRespon", false))),
        (r"_msg ~ '\bquark\b'", Some(word("quark", false))),
        (r"_msg ~ '(?i)\bConnection broken\b'", Some(word("Connection broken", true))),
        (r"_msg ~ '\bquark'", Some(contains("quark", false))),
        (
            "_msg ~ 'blk_-?[0-9]+ of size [0-9]{8}'",
            Some(Predicate::All(vec![contains("blk_", false), contains(" of size ", false)])),
        ),
        ("_msg ~ 'ab|cd'", None),
        ("_msg ~ '(ab|cd)ef'", Some(contains("ef", false))),
        ("_msg ~ 'ab*c+d?e'", Some(Predicate::All(["a", "c", "e"].map(|part| contains(part, false)).into()))),
        (r"_msg ~ 'a\.b\d+c'", Some(Predicate::All(vec![contains("a.b", false), contains("c", false)]))),
        (r"_msg ~ 'x(?i)y'", Some(contains("x", false))),
        (r"_msg ~ '\<error\>'", Some(contains("error", false))),
        (r"_msg ~ 'abcd+*e'", Some(Predicate::All(vec![contains("abc", false), contains("e", false)]))),
        (r"_msg ~ 'abcd+{0}e'", Some(contains("abce", false))),
        (r"_msg ~ 'ab+?c'", Some(Predicate::All(vec![contains("ab", false), contains("c", false)]))),
        (r"_msg ~ '\bfoo\b?'", Some(contains("foo", false))),
        (
            r"_msg ~ '(user=(root|admin) logged) in'",
            Some(Predicate::All(vec![contains("user=", false), contains(" logged in", false)])),
        ),
        ("_msg ~ '[]a-z]x'", Some(contains("x", false))),
        ("_msg ~ '.*'", None),
        ("_msg !~ 'a'", None),
    ] {
        assert_eq!(of(sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn times_are_compared_with_the_times_of_a_chunk() {
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
    for (sql, expected) in [
        ("_time >= to_timestamp_seconds(20)", false),
        ("_time >= to_timestamp_seconds(19)", true),
        ("_time < to_timestamp_seconds(10)", false),
        ("_time <= to_timestamp_seconds(10)", true),
        ("_time = to_timestamp_seconds(15)", true),
        ("_time = to_timestamp_seconds(25)", false),
        ("_time > to_timestamp_seconds(15) AND _time < to_timestamp_seconds(5)", false),
        ("_time > to_timestamp_seconds(25) OR _time < to_timestamp_seconds(15)", true),
        ("_time > to_timestamp_seconds(25) OR n = 1", true),
        ("_time IS NULL", false),
        ("_time IS NULL OR n = 1", true),
        ("n = 1", true),
    ] {
        use arrow::datatypes::{Field, Schema, TimeUnit};
        use datafusion::physical_expr::PhysicalExprSimplifier;
        let fields = vec![
            Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, None), false),
            Field::new("n", DataType::Int64, true),
        ];
        let schema = Schema::new(fields);
        let named = datafusion::common::DFSchema::try_from(schema.clone()).unwrap();
        let context = SessionContext::new();
        let expr = context.parse_sql_expr(sql, &named).unwrap();
        let expr = context.create_physical_expr(expr, &named).unwrap();
        let expr = PhysicalExprSimplifier::new(&schema).simplify(expr).unwrap();
        let found = needs(&expr).is_none_or(|needs| may_lie_in(&needs, at(10), at(19)));
        assert_eq!(found, expected, "{sql}: {expr}");
    }
}

#[test]
fn rounded_times_and_large_numbers_are_not_taken_at_their_word() {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    let fields = vec![
        Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        Field::new("n", DataType::Int64, true),
    ];
    let schema = Schema::new(fields);
    let seconds = cast(col(TIME, &schema).unwrap(), &schema, DataType::Timestamp(TimeUnit::Second, None)).unwrap();
    let ten = lit(ScalarValue::TimestampSecond(Some(10), None));
    let equal: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(seconds, Operator::Eq, ten));
    let late = Timestamp::from_millis(10_999);
    assert!(may_lie_in(&needs(&equal).unwrap(), late, late), "10.999 is 10 in seconds");

    let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("+07:00".into()));
    let moved = cast(col(TIME, &schema).unwrap(), &schema, zoned).unwrap();
    let ten = lit(ScalarValue::TimestampMillisecond(Some(10_000), Some("+07:00".into())));
    let before: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(moved, Operator::LtEq, ten));
    assert_eq!(needs(&before), None, "the cast moves the time by seven hours");

    let float = |value: f64| {
        let wide = cast(col("n", &schema).unwrap(), &schema, DataType::Float64).unwrap();
        let expr: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(wide, Operator::GtEq, lit(value)));
        needs(&expr)
    };
    assert!(float(7.5).is_some());
    assert_eq!(float(1e17), None, "floats of this size stand for several integers");
}
