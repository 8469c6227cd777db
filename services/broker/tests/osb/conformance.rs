//! The conformance checklist: for each of its hundred points the tests that prove it, or why it does not apply.
//!
//! Source: Open Service Broker API 2.17, and what its clients are known to do.

mod points;

use std::{collections::BTreeMap, fs, path::Path};

pub(crate) const SLOW: &str = "1bf1831a-faf5-465e-aafc-f73aa229592f";
pub(crate) const SLOW_PLAN: &str = "a4048bc2-539f-4462-adba-062660f28b62";
pub(crate) const APP: &str = "7272d4f5-6d70-4b33-8af5-58188e82f3d9";
pub(crate) const APP_PLAN: &str = "7272d4f5-6d70-4b33-8af5-58188e82f3da";
pub(crate) const SEALED: &str = "7272d4f5-6d70-4b33-8af5-58188e82f3db";

/// A catalog with an offering of each kind; the first has the ids of the built-in one.
pub(crate) const CATALOG: &str = r#"
services:
  - id: 0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10
    name: log-index
    description: As the built-in one
    backend: own
    instances_retrievable: true
    bindings_retrievable: true
    plan_updateable: true
    binding_rotatable: true
    plans:
      - id: 5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01
        name: small
        description: With a secret parameter
        maintenance_info: { version: "1.2.3" }
        schemas:
          service_instance:
            create:
              parameters:
                $schema: http://json-schema.org/draft-07/schema#
                type: object
                additionalProperties: false
                properties:
                  index: { type: string, pattern: "^[a-z0-9][a-z0-9_-]{0,62}$" }
                  segments: { type: integer, minimum: 1, maximum: 64 }
                  key: { type: string, maxLength: 32, writeOnly: true }
      - id: 8c7d1f64-90c2-4b0e-b1d3-6e4c9a2f5b02
        name: standard
        description: Without a maintenance version
      - id: 7272d4f5-6d70-4b33-8af5-58188e82f3db
        name: sealed
        description: Cannot be bound
        bindable: false
  - id: 1bf1831a-faf5-465e-aafc-f73aa229592f
    name: slow
    description: Asynchronous only
    backend: own
    asynchronous: true
    bindings_retrievable: true
    plans:
      - { id: a4048bc2-539f-4462-adba-062660f28b62, name: slow, description: Takes its time }
  - id: 7272d4f5-6d70-4b33-8af5-58188e82f3d9
    name: app
    description: For applications only
    backend: own
    requires_app: true
    plans:
      - { id: 7272d4f5-6d70-4b33-8af5-58188e82f3da, name: app, description: For applications only }
"#;

/// How a point is proven.
enum Proof {
    /// By tests, each `file::test` with the file below the broker's folder.
    By(&'static [&'static str]),
    /// It does not apply, and why.
    Void(&'static str),
}

use Proof::{By, Void};

const PROTOCOL_ORDER: &str = "tests/osb/protocol.rs::credentials_come_first_then_version_then_route";
const PROTOCOL_IDENTITY: &str = "tests/osb/protocol.rs::identities_are_echoed_and_checked";
const PROTOCOL_BODIES: &str = "tests/osb/protocol.rs::bodies_are_objects_within_a_limit";
const PROTOCOL_CATALOG: &str = "tests/osb/protocol.rs::the_catalog_is_gated_and_has_a_tag";
const RULES: &str = "src/catalog/tests.rs::a_catalog_that_breaks_a_rule_is_not_served";
const STRICT: &str = "tests/osb/conformance/points.rs::the_catalog_is_what_strict_clients_take";
const GATED: &str = "src/catalog/tests.rs::newer_fields_are_held_back";
const CHECKED: &str = "tests/osb/instances.rs::a_provision_request_is_checked";
const LIVES: &str = "tests/osb/instances.rs::an_instance_lives_and_ends";
const DELETED: &str = "tests/osb/instances.rs::deletion_wins_over_a_provisioning_under_way";
const FAILED: &str = "tests/osb/instances.rs::what_fails_for_good_is_said_and_leaves_nothing";
const RESTART: &str = "tests/osb/instances.rs::operations_survive_a_restart";
const REPLICAS: &str = "tests/osb/instances.rs::every_replica_answers_and_a_race_makes_one_instance";
const ASYNCHRONOUS: &str = "tests/osb/conformance/points.rs::an_asynchronous_plan_is_worked_on_behind_a_token";
const WAITS: &str = "tests/osb/operations.rs::an_asynchronous_offering_needs_a_platform_that_waits";
const MAINTENANCE: &str = "tests/osb/conformance/points.rs::a_wanted_maintenance_version_is_the_plans";
const ENDING: &str = "tests/osb/conformance/points.rs::what_is_being_deprovisioned_takes_nothing_and_says_why";
const VANISHED: &str = "tests/osb/conformance/points.rs::a_plan_that_leaves_the_catalog_serves_its_instances";
const KINDS: &str = "tests/osb/conformance/points.rs::offerings_may_need_an_application_and_plans_may_not_be_bindable";
const UNKNOWN: &str = "tests/osb/conformance/points.rs::unknown_fields_are_ignored_at_every_level";
const DOCUMENT: &str = "src/osb/openapi.rs::the_document_names_every_route_and_no_other";
const FUZZED: &str = "tests/osb/fuzz.rs::whatever_is_sent_is_answered_and_what_is_refused_changes_nothing";
const EXACT: &str = "src/osb/answer.rs::the_reserved_errors_have_the_exact_texts";
const SECRETS: &str = "tests/osb/secrets.rs::secrets_are_in_no_log_no_metric_and_no_error";
const UPDATE_CHECKED: &str = "tests/osb/updates.rs::an_update_request_is_checked";
const UPDATED: &str = "tests/osb/updates.rs::plan_and_parameters_are_changed";
const UPDATE_ALONE: &str = "tests/osb/updates.rs::an_update_under_way_is_left_alone";
const UPDATE_FAILED: &str = "tests/osb/updates.rs::a_failed_update_leaves_what_was_there";
const BIND_CHECKED: &str = "tests/osb/bindings.rs::a_bind_request_is_checked";
const BOUND: &str = "tests/osb/bindings.rs::a_binding_lives_and_ends";
const WITH_INSTANCE: &str = "tests/osb/bindings.rs::deprovisioning_takes_bindings_along";
const BIND_WAITS: &str = "tests/osb/bindings.rs::a_bind_waits_for_its_instance";
const ROTATED: &str = "tests/osb/bindings.rs::a_binding_is_rotated";
const BIND_SLOW: &str = "tests/osb/bindings.rs::a_bind_is_handed_out_as_an_operation_when_it_takes_long";
const ENDS: &str = "src/desk/operations.rs::every_end_has_its_answer";
const USABLE: &str = "src/desk/operations.rs::a_failure_says_what_can_still_be_used";
const TOO_LONG: &str = "tests/osb/operations.rs::what_takes_longer_than_its_plan_allows_is_given_up";
const CONVERGES: &str = "tests/osb/operations.rs::a_deletion_converges_however_often_it_fails";
const LEFT: &str = "tests/osb/operations.rs::what_was_left_is_removed_and_what_is_foreign_is_not";
const SURE: &str = "tests/osb/operations.rs::a_leader_whose_time_is_over_says_of_nothing_that_it_is_not_there";
const LINEAR: &str = "tests/osb/conformance/points.rs::requests_for_one_instance_are_answered_one_after_the_other";
const AUDITED: &str = "../../tests/broker.rs::the_audit_is_complete_through_a_killed_leader";

/// The points, by number.
const POINTS: &[(u8, Proof)] = &[
    (1, By(&[PROTOCOL_ORDER])),
    (2, By(&[PROTOCOL_ORDER])),
    (
        3,
        By(&[
            "tests/osb/conformance/points.rs::several_credentials_are_valid_at_once_and_change_without_a_restart",
            "src/osb/credentials.rs::each_credential_lets_its_own_platform_in",
        ]),
    ),
    (4, By(&[PROTOCOL_ORDER])),
    (5, By(&[PROTOCOL_ORDER, "src/osb/request.rs::versions_are_compared_as_numbers", STRICT])),
    (6, By(&[PROTOCOL_IDENTITY, "src/osb/request.rs::an_identity_is_optional_but_never_malformed", AUDITED])),
    (7, By(&[PROTOCOL_IDENTITY])),
    (8, By(&[UNKNOWN])),
    (9, By(&[PROTOCOL_BODIES, FUZZED])),
    (10, By(&[LIVES, UPDATED, FUZZED])),
    (11, By(&[FUZZED, USABLE, UPDATE_CHECKED])),
    (12, By(&[EXACT, ASYNCHRONOUS, ENDING, KINDS, MAINTENANCE])),
    (13, By(&[EXACT, ASYNCHRONOUS, ENDING, KINDS])),
    (14, By(&[FUZZED, CHECKED, UPDATE_CHECKED])),
    (15, By(&[PROTOCOL_ORDER, PROTOCOL_BODIES, "src/osb/route.rs::paths_and_methods_find_their_route"])),
    (16, By(&[PROTOCOL_BODIES, ASYNCHRONOUS])),
    (
        17,
        By(&[
            "tests/osb/conformance/points.rs::ids_may_be_any_text",
            "src/osb/route.rs::every_id_has_a_token_of_its_own",
        ]),
    ),
    (
        18,
        By(&[
            PROTOCOL_BODIES,
            ASYNCHRONOUS,
            "src/catalog/schema.rs::a_schema_that_breaks_a_rule_is_refused_by_its_place",
        ]),
    ),
    (19, By(&[STRICT])),
    (20, By(&[RULES, STRICT])),
    (21, By(&[RULES, STRICT])),
    (22, By(&[VANISHED, "src/catalog/shelf.rs::a_good_file_is_taken_whole_and_a_bad_one_not_at_all"])),
    (23, By(&[RULES])),
    (24, By(&[STRICT, KINDS, GATED])),
    (
        25,
        By(&[
            STRICT,
            "src/catalog/schema.rs::a_schema_that_breaks_a_rule_is_refused_by_its_place",
            "src/catalog/tests.rs::schemas_guard_every_kind_of_request_and_plans_have_limits",
        ]),
    ),
    (26, By(&["src/catalog/read.rs::a_version_is_semantic_or_not", RULES])),
    (27, By(&[RULES])),
    (28, By(&["src/catalog/tests.rs::a_dashboard_client_is_served_whole_and_only_if_somebody_wrote_it", RULES])),
    (29, By(&[PROTOCOL_CATALOG, "src/osb/request.rs::a_known_tag_is_found_in_a_list"])),
    (30, By(&[GATED, STRICT, "src/osb/gate.rs::a_field_is_there_from_its_version_on", BOUND])),
    (31, By(&[CHECKED])),
    (32, By(&[CHECKED, VANISHED])),
    (33, By(&[CHECKED, "src/catalog/schema.rs::a_complaint_names_the_path_and_not_the_value"])),
    (34, By(&[PROTOCOL_BODIES])),
    (35, By(&[LIVES, ASYNCHRONOUS])),
    (36, By(&[ASYNCHRONOUS, WAITS])),
    (37, By(&[LIVES, DELETED, ASYNCHRONOUS])),
    (38, By(&[LIVES, UPDATED, "src/osb/body.rs::the_order_of_keys_does_not_matter"])),
    (39, By(&[MAINTENANCE, UNKNOWN])),
    (40, By(&[LIVES, DELETED, ASYNCHRONOUS])),
    (41, By(&[ENDING])),
    (42, By(&[LIVES])),
    (43, By(&[ASYNCHRONOUS, DELETED])),
    (44, By(&[LIVES, ASYNCHRONOUS, MAINTENANCE])),
    (45, By(&[ASYNCHRONOUS, DELETED])),
    (46, By(&[UPDATE_ALONE])),
    (47, By(&[LIVES])),
    (48, By(&[SECRETS, "src/catalog/schema.rs::what_is_marked_as_secret_is_not_shown"])),
    (49, By(&[UPDATE_CHECKED])),
    (50, By(&[UPDATE_CHECKED, UPDATED])),
    (51, By(&["tests/osb/updates.rs::a_plan_is_left_only_where_it_may_be", UPDATED])),
    (52, By(&[UPDATE_CHECKED, UPDATE_ALONE])),
    (53, By(&[UPDATE_CHECKED, ENDING, WAITS])),
    (54, By(&[UPDATE_CHECKED, UNKNOWN])),
    (55, By(&["tests/osb/updates.rs::an_upgrade_and_a_context_are_updates_of_their_own"])),
    (
        56,
        By(&[
            "tests/osb/updates.rs::an_upgrade_and_a_context_are_updates_of_their_own",
            "tests/osb/updates.rs::an_upgrade_follows_the_catalog",
        ]),
    ),
    (57, By(&[UPDATE_CHECKED, UPDATE_FAILED, USABLE])),
    (58, By(&["tests/osb/updates.rs::a_smaller_plan_must_fit_what_was_asked_for"])),
    (
        59,
        By(&[
            UPDATE_CHECKED,
            DOCUMENT,
            "tests/osb/conformance/points.rs::the_published_document_needs_credentials_and_no_version",
        ]),
    ),
    (60, By(&[BIND_CHECKED])),
    (61, By(&[KINDS])),
    (62, By(&[BIND_CHECKED, BIND_WAITS])),
    (63, By(&[KINDS])),
    (64, By(&[BIND_CHECKED])),
    (65, By(&[BOUND, ASYNCHRONOUS, BIND_SLOW])),
    (66, By(&[BIND_CHECKED, "src/state/tests.rs::a_binding_is_compared_before_its_plan_is_checked"])),
    (67, By(&[WITH_INSTANCE])),
    (68, Void("no offering of ours is a log drain, and a catalog that requires syslog_drain has no back-end for it")),
    (69, By(&[BOUND, "src/desk/credentials.rs::endpoints_name_host_and_port"])),
    (
        70,
        By(&[
            BOUND,
            "tests/osb/bindings.rs::a_binding_ends_by_itself",
            "src/desk/credentials.rs::times_have_the_form_of_the_specification",
        ]),
    ),
    (71, By(&[ROTATED, "src/state/tests.rs::a_rotation_copies_a_live_binding"])),
    (72, By(&[BOUND, ASYNCHRONOUS])),
    (73, By(&[BOUND, "tests/osb/bindings.rs::an_unbind_does_not_wait_for_its_instance"])),
    (74, By(&[LIVES])),
    (75, By(&[LIVES, ASYNCHRONOUS, ENDING])),
    (76, By(&[ASYNCHRONOUS])),
    (77, By(&[DELETED, "src/state/tests.rs::deprovisioning_wins_over_provisioning"])),
    (78, By(&[WITH_INSTANCE])),
    (79, By(&[VANISHED])),
    (80, By(&[DELETED, FAILED])),
    (81, By(&[LIVES, DELETED, ENDS])),
    (82, By(&[LIVES, ENDS, SURE])),
    (83, By(&[ASYNCHRONOUS, ENDS])),
    (84, By(&[ASYNCHRONOUS, ENDS])),
    (85, By(&[ASYNCHRONOUS, UPDATE_ALONE])),
    (86, By(&["src/state/operation.rs::what_is_too_old_or_too_much_is_forgotten"])),
    (87, By(&[LIVES, ASYNCHRONOUS, ENDS])),
    (88, By(&[FAILED, UPDATE_FAILED, USABLE])),
    (89, By(&[RESTART, "tests/osb/updates.rs::an_update_survives_the_death_of_its_leader"])),
    (90, By(&[TOO_LONG, "src/state/tests.rs::what_takes_too_long_is_given_up"])),
    (91, By(&[UPDATE_ALONE, BIND_WAITS, ENDING])),
    (92, By(&[LINEAR])),
    (
        93,
        By(&[
            "src/api.rs::an_answer_comes_before_any_platform_gives_up",
            "src/desk.rs::whatever_hangs_is_answered",
            DELETED,
        ]),
    ),
    (94, By(&[DELETED, LEFT])),
    (95, By(&[LEFT])),
    (96, By(&[RESTART, "tests/osb/operations.rs::a_deletion_survives_the_death_of_its_leader", CONVERGES])),
    (97, By(&[REPLICAS, LINEAR])),
    (98, By(&["tests/osb/audit.rs::every_mutation_is_audited_with_its_identity", AUDITED])),
    (99, By(&[SECRETS])),
    (
        100,
        By(&[
            "tests/osb/authority.rs::the_authority_of_the_bundle_vouches_for_the_name_of_the_service",
            "../../tests/tls.rs::a_standalone_speaks_tls_on_every_connection_and_takes_a_new_certificate",
        ]),
    ),
];

/// The tests of a file: names of functions below a test attribute.
fn tests_of(path: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let below = lines.windows(2).filter(|two| two[0].starts_with("#[") && two[0].contains("test"));
    let name = |line: &str| Some(line.split("fn ").nth(1)?.split('(').next()?.to_owned());
    below.filter_map(|two| name(two[1])).collect()
}

#[test]
fn every_point_has_its_proof() {
    let mut files = BTreeMap::<&str, Vec<String>>::new();
    let mut wrong = Vec::new();
    let mut proven = 0;
    for (expected, (number, proof)) in (1_u8..=100).zip(POINTS) {
        assert_eq!(*number, expected, "the points are in order, each once");
        match proof {
            By(tests) => {
                assert!(!tests.is_empty(), "{number} has no proof");
                proven += 1;
                for test in *tests {
                    let (file, name) = test.split_once("::").unwrap();
                    let there = files.entry(file).or_insert_with(|| tests_of(file));
                    if !there.iter().any(|known| known == name) {
                        wrong.push(format!("{number}: {test} is no test"));
                    }
                }
            }
            Void(reason) => assert!(reason.len() > 20, "{number} says why it does not apply"),
        }
    }
    assert_eq!(POINTS.len(), 100);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(proven, 99);
}
