//! A Java service with a log4j layout; some errors carry a stack trace.

use types::Severity::{self, Debug, Error, Info, Warn};

use super::{
    Facts,
    fill::fill,
    rng::{Rng, Zipf},
    stamp::Civil,
};

/// Severity, logger and message, commonest first.
const FINE: [(Severity, &str, &str); 13] = [
    (Info, "com.example.orders.OrderService", "Order {id} confirmed for customer {id} in {small} ms"),
    (Debug, "com.example.orders.repo.OrderRepository", "Loaded {small} rows from {table}"),
    (Info, "com.example.http.AccessFilter", "GET /orders/{id} -> 200 ({small} ms)"),
    (Info, "com.example.messaging.Consumer", "Received event {trace} from subject orders.{word}"),
    (Info, "com.example.billing.InvoiceJob", "Invoice {id} written, {bytes} bytes"),
    (Debug, "com.zaxxer.hikari.pool.HikariPool", "HikariPool-1 - Pool stats (total=10, active={small}, waiting=0)"),
    (Info, "com.example.stock.StockSync", "Synchronised {small} of {small} warehouses"),
    (Warn, "com.example.http.SlowRequests", "Request to /orders/{id} took {id} ms"),
    (Info, "com.example.cache.CacheManager", "Evicted {small} entries from region {word}"),
    (Info, "org.apache.kafka.clients.Metadata", "Cluster metadata refreshed from {ip}:{port}"),
    (Info, "com.example.auth.TokenService", "Issued token for user {user} valid 3600 s"),
    (Warn, "com.example.stock.StockService", "Stock of {word} below threshold: {small}"),
    (Info, "com.example.scheduler.Scheduler", "Job nightly-{word} scheduled as {hex}"),
];

const FAILING: [(Severity, &str, &str); 6] = [
    (Error, "com.example.orders.OrderService", "Failed to confirm order {id}"),
    (Error, "com.example.billing.PaymentClient", "Call to payment provider timed out after {id} ms"),
    (Warn, "com.example.http.RetryHandler", "Attempt {small} for {workload} failed, backing off"),
    (Error, "com.example.messaging.Consumer", "Event {trace} could not be processed"),
    (Error, "com.zaxxer.hikari.pool.HikariPool", "HikariPool-1 - Connection is not available after 30000 ms"),
    (Severity::Fatal, "com.example.Main", "Out of memory, giving up"),
];

/// What was thrown, where, and sometimes why.
const THROWN: [(&str, &[&str], &str); 4] = [
    (
        "java.lang.IllegalStateException: order {id} is already closed",
        &[
            "com.example.orders.OrderService.confirm(OrderService.java:{small})",
            "com.example.orders.OrderController.put(OrderController.java:{small})",
            "jdk.internal.reflect.DirectMethodHandleAccessor.invoke(DirectMethodHandleAccessor.java:103)",
            "org.eclipse.jetty.server.Server.handle(Server.java:563)",
            "java.base/java.lang.Thread.run(Thread.java:1583)",
        ],
        "",
    ),
    (
        "java.net.SocketTimeoutException: Read timed out",
        &[
            "java.base/sun.nio.ch.NioSocketImpl.timedRead(NioSocketImpl.java:278)",
            "com.example.billing.PaymentClient.authorise(PaymentClient.java:{small})",
            "com.example.billing.PaymentService.pay(PaymentService.java:{small})",
        ],
        "java.net.ConnectException: Connection refused: {ip}:{port}",
    ),
    (
        "java.lang.NullPointerException: Cannot invoke \"Customer.address()\" because \"customer\" is null",
        &[
            "com.example.orders.Shipping.label(Shipping.java:{small})",
            "com.example.orders.OrderService.lambda$ship$3(OrderService.java:{small})",
            "java.base/java.util.stream.ForEachOps.forEach(ForEachOps.java:184)",
        ],
        "",
    ),
    (
        "org.postgresql.util.PSQLException: ERROR: deadlock detected",
        &[
            "org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2725)",
            "com.zaxxer.hikari.pool.ProxyPreparedStatement.executeUpdate(ProxyPreparedStatement.java:61)",
            "com.example.orders.repo.OrderRepository.save(OrderRepository.java:{small})",
        ],
        "java.io.IOException: Broken pipe",
    ),
];

pub(super) fn line(rng: &mut Rng, zipf: &Zipf, time: Civil, failing: bool) -> (String, Facts) {
    let (severity, logger, message) = zipf.pick(rng, if failing { &FAILING[..] } else { &FINE[..] });
    let word = severity.as_str().to_ascii_uppercase();
    let mut out = String::with_capacity(160);
    out.push_str(&format!("{} {word:<5} [http-nio-8080-exec-", time.plain_millis(',')));
    fill(rng, "{small}] ", &mut out);
    out.push_str(&format!("{logger} - "));
    fill(rng, message, &mut out);
    // Of the failing lines; with the bursts about 3 % of all Java lines.
    if severity >= Error && rng.below(100) < 70 {
        let (thrown, frames, cause) = zipf.pick(rng, &THROWN);
        out.push('\n');
        fill(rng, thrown, &mut out);
        trace(rng, frames, &mut out);
        if !cause.is_empty() {
            out.push_str("\nCaused by: ");
            fill(rng, cause, &mut out);
            trace(rng, &frames[..1], &mut out);
            out.push_str("\n\t... 17 more");
        }
    }
    (out, Facts { severity: Some(severity), ..Facts::default() })
}

fn trace(rng: &mut Rng, frames: &[&str], out: &mut String) {
    for frame in frames {
        out.push_str("\n\tat ");
        fill(rng, frame, out);
    }
}
