//! What the alerter counts.

telemetry::metrics! {
    RULES: Gauge = "lb_alerter_rules", "Rules.";
    UNDELIVERED: Gauge = "lb_alerter_undelivered", "Notifications on their way.";
    DELIVERED: Counter = "lb_alerter_delivered_total", "Notifications that a receiver took.";
    GIVEN_UP: Counter = "lb_alerter_given_up_total", "Notifications that were given up.";
    TRANSITIONS: Counter = "lb_alerter_transitions_total", "Transitions of rule instances.";
}
