use super::*;

const V: fn(u32) -> Version = |minor| Version { minor };
const SERVICE: &str = "0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10";
const SMALL: &str = "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01";

/// A catalog of one offering with some more keys, and its plans.
fn service(more: &str, plans: &str) -> String {
    format!(r#"{{"services":[{{"id":"s","name":"s","description":"d","backend":"own",{more}"plans":[{plans}]}}]}}"#)
}

const PLAN: &str = r#"{"id":"p","name":"p","description":"d"}"#;

/// A plan with some more keys.
fn plan(more: &str) -> String {
    PLAN.replace('}', &format!(",{more}}}"))
}

fn plan_of(catalog: &Catalog, service_id: &str, plan_id: &str) -> Chosen {
    catalog.find(service_id, plan_id).unwrap()
}

#[test]
fn the_built_in_catalog_is_valid_and_hides_what_is_ours() {
    let catalog = Catalog::parse(BUILT_IN).unwrap();
    let shown = catalog.shown(V(17));
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&shown["services"]), ["log-index", "splunk-index", "s3-archive"]);
    let service = &shown["services"][0];
    assert_eq!(
        (service["bindable"].as_bool(), service["metadata"]["displayName"].as_str()),
        (Some(true), Some("Log index"))
    );
    assert_eq!(names(&service["plans"]), ["small", "standard", "durable"]);
    let small = &service["plans"][0];
    assert_eq!((&small["free"], &small["binding_rotatable"]), (&json!(true), &json!(true)));
    assert_eq!(small["maximum_polling_duration"], 600);
    assert_eq!(small["maintenance_info"]["version"], "1.0.0");
    for ours in ["backend", "defaults", "asynchronous", "limits", "requires_app", "offered", "copies"] {
        assert!(!shown.to_string().contains(&format!("\"{ours}\":")), "{ours}");
    }
    let small = plan_of(&catalog, SERVICE, SMALL);
    assert_eq!((small.plan.defaults.segments, small.plan.defaults.retention_days), (1, Some(7)));
    assert!(small.plan.plan_updateable && small.plan.binding_rotatable && small.is_bindable());
    assert_eq!(small.plan.maintenance_version.as_deref(), Some("1.0.0"));
    assert!(catalog.find(SERVICE, SERVICE).is_none() && catalog.find("other", SMALL).is_none());
    assert_eq!(catalog.name_of(SMALL).as_deref(), Some("log-index/small"));
    let backends: Vec<_> = shown["services"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    let slow = backends.iter().map(|id| catalog.offering(id).unwrap().asynchronous).collect::<Vec<_>>();
    assert_eq!(slow, [false, true, true]);
}

#[test]
fn newer_fields_are_held_back() {
    let catalog = Catalog::parse(BUILT_IN).unwrap();
    for (minor, field, of_plan, there) in [
        (11, "plan_updateable", false, true),
        (11, "instances_retrievable", false, false),
        (13, "bindings_retrievable", false, false),
        (14, "bindings_retrievable", false, true),
        (15, "allow_context_updates", false, false),
        (16, "allow_context_updates", false, true),
        (17, "binding_rotatable", false, false),
        (11, "free", true, true),
        (12, "schemas", true, false),
        (13, "schemas", true, true),
        (14, "plan_updateable", true, false),
        (15, "plan_updateable", true, true),
        (14, "maintenance_info", true, false),
        (15, "maintenance_info", true, true),
        (14, "maximum_polling_duration", true, false),
        (15, "maximum_polling_duration", true, true),
        (16, "binding_rotatable", true, false),
        (17, "binding_rotatable", true, true),
        (99, "binding_rotatable", true, true),
    ] {
        let service = &catalog.shown(V(minor))["services"][0];
        let place = if of_plan { &service["plans"][0] } else { service };
        assert_eq!(place.get(field).is_some(), there, "{field} at 2.{minor}");
    }
    for minor in 11..30 {
        let page = catalog.page(V(minor));
        assert_eq!(page.body, catalog.shown(V(minor)).to_string(), "2.{minor}");
        let same = catalog.etag(V(minor)) == catalog.etag(V(minor + 1));
        assert_eq!(same, ![12, 13, 14, 15, 16].contains(&minor), "2.{minor}");
    }
}

#[test]
fn schemas_guard_every_kind_of_request_and_plans_have_limits() {
    let catalog = Catalog::parse(BUILT_IN).unwrap();
    let small = plan_of(&catalog, SERVICE, SMALL);
    for (parameters, path) in [
        (json!({"segments": 0}), "parameters/segments: "),
        (json!({"segments": 9}), "parameters/segments: "),
        (json!({"segments": 1.5}), "parameters/segments: "),
        (json!({"retention_days": 91}), "parameters/retention_days: "),
        (json!({"index": "Shop"}), "parameters/index: "),
        (json!({"indx": "shop"}), "parameters: "),
        (json!({"scaling": {"by": "luck"}}), "parameters/scaling: "),
        (json!({"scaling": {"by": "fixed", "target": 1}}), "parameters/scaling: "),
        (json!({"reclaim_policy": "burn"}), "parameters/reclaim_policy: "),
        (json!({"adopt_existing": "yes"}), "parameters/adopt_existing: "),
        (json!({"encryption": "yes"}), "parameters/encryption: "),
    ] {
        let complaint = small.check_provision(&parameters).unwrap_err();
        assert!(complaint.starts_with(path), "{complaint}");
    }
    let all = json!({
        "index": "shop", "segments": 8, "retention_days": 90, "max_bytes": 1_073_741_824, "adopt_existing": true,
        "encryption": true,
        "reclaim_policy": "fail", "scaling": {"by": "data_rate", "target_kib": 100, "factor": 2, "min_segments": 1},
    });
    small.check_provision(&all).unwrap();
    small.check_update(&json!({"retention_days": 90, "scaling": {"by": "fixed"}})).unwrap();
    for fixed in ["index", "segments", "adopt_existing", "encryption"] {
        let complaint = small.check_update(&json!({ fixed: all[fixed] })).unwrap_err();
        assert!(complaint.contains(fixed), "{complaint}");
    }
    assert!(small.check_update(&json!({"retention_days": 91})).is_err(), "limits hold for updates too");
    small.check_bind(&json!({"role": "read", "ttl_seconds": 60})).unwrap();
    assert!(small.check_bind(&json!({"role": "root"})).unwrap_err().starts_with("parameters/role: "));
    let schema = &catalog.shown(V(17))["services"][0]["plans"][0]["schemas"]["service_instance"]["create"];
    assert_eq!(schema["parameters"]["properties"]["segments"]["maximum"], 8, "platforms see the limits");
}

#[test]
fn a_plan_is_offered_where_the_installation_keeps_what_it_says() {
    let durable = "a78aa8e3-d992-48c9-89ec-3d4b6eb41954";
    for (copies, there) in [(1, false), (3, true), (5, true)] {
        let catalog = Catalog::offering_only(BUILT_IN, &[], copies).unwrap();
        assert_eq!(catalog.shown(V(17)).to_string().contains(durable), there, "{copies}");
        assert_eq!(catalog.find(SERVICE, durable).is_some(), there, "{copies}");
        assert!(catalog.known(SERVICE, durable).is_some() && catalog.find(SERVICE, SMALL).is_some(), "{copies}");
        let lacking =
            (!there).then(|| "the plan durable needs 3 copies of each event, and this installation keeps 1".to_owned());
        assert_eq!((catalog.lacking(SERVICE, durable), catalog.withheld()), (lacking.clone(), Vec::from_iter(lacking)));
    }
    let only = service("", &plan(r#""copies":3"#));
    let refused = Catalog::offering_only(&only, &[], 1).map(drop).unwrap_err().to_string();
    assert!(refused.contains("s: each of its plans needs more than 1 copies"), "{refused}");
    Catalog::offering_only(&only, &[], 3).unwrap();
}

#[test]
fn only_what_the_settings_name_is_offered() {
    let names = ["log-index".to_owned(), "s3-archive".to_owned()];
    let catalog = Catalog::offering_only(BUILT_IN, &names, 3).unwrap();
    let shown = catalog.shown(V(17));
    assert_eq!(shown["services"].as_array().unwrap().len(), 2);
    let (splunk, plan) = ("c0f379a7-4c96-4e1e-9370-e8ef74d35678", "4dfc8dc7-e8b9-4295-b79e-cf21f49a40be");
    assert!(catalog.find(splunk, plan).is_none(), "not for new instances");
    assert!(catalog.known(splunk, plan).is_some() && catalog.offering(splunk).is_some(), "for those that are there");
    let error = Catalog::offering_only(BUILT_IN, &["elastic".to_owned()], 3).unwrap_err().to_string();
    assert!(error.contains("there is no offering elastic; the catalog has log-index, splunk-index"), "{error}");
    // One plan of two.
    let text = service("", &format!(r#"{PLAN},{{"id":"q","name":"q","description":"d","offered":false}}"#));
    let catalog = Catalog::parse(&text).unwrap();
    assert_eq!(catalog.shown(V(17))["services"][0]["plans"].as_array().unwrap().len(), 1);
    assert!(catalog.find("s", "q").is_none() && catalog.known("s", "q").is_some());
}

#[test]
fn a_plan_inherits_from_its_offering_and_may_say_otherwise() {
    let offering = r#""bindable":false,"plan_updateable":true,"binding_rotatable":true,"maximum_polling_duration":9,"#;
    let heir = Catalog::parse(&service(offering, PLAN)).unwrap();
    let heir = plan_of(&heir, "s", "p");
    assert_eq!((heir.is_bindable(), heir.plan.plan_updateable, heir.plan.binding_rotatable), (false, true, true));
    assert_eq!(heir.plan.maximum_polling_duration, Some(9));
    let more = r#""bindable":true,"plan_updateable":false,"binding_rotatable":false,"maximum_polling_duration":5"#;
    let own = Catalog::parse(&service(offering, &plan(more))).unwrap();
    let own = plan_of(&own, "s", "p");
    assert_eq!((own.is_bindable(), own.plan.plan_updateable, own.plan.binding_rotatable), (true, false, false));
    assert_eq!(own.plan.maximum_polling_duration, Some(5));
}

#[test]
fn a_catalog_that_breaks_a_rule_is_not_served() {
    Catalog::parse(&service("", PLAN)).unwrap();
    let two =
        service("", PLAN).replace("]}]}", r#"]},{"id":"t","name":"s","description":"d","backend":"own","plans":[]}]}"#);
    let two = two.replace(r#""plans":[]"#, &format!(r#""plans":[{}]"#, PLAN.replace("\"p\"", "\"q\"")));
    let schemas = r#""schemas":{"service_instance":{"create":{"parameters":{"$schema":
        "http://json-schema.org/draft-07/schema#","type":"object","properties":{"segments":{"type":"integer","maximum":4}}}}}}"#;
    for (text, complaint) in [
        ("services: 7".to_owned(), "needs a list"),
        ("[".to_owned(), "cannot be read"),
        (r#"{"services":[7]}"#.to_owned(), "must be an object"),
        (service("", ""), "at least one plan"),
        (service("", &format!("{PLAN},{PLAN}")), "the id \"p\" stands twice: s/p has it too"),
        (service("", &PLAN.replace(r#""id":"p""#, r#""id":"s""#)), "the id \"s\" stands twice"),
        (service("", &format!("{PLAN},{}", PLAN.replace(r#""id":"p""#, r#""id":"q""#))), "the name \"p\" stands twice"),
        (two, "the name \"s\" stands twice"),
        (service(r#""bindable":"yes","#, PLAN), "bindable must be true or false"),
        (service(r#""instances_retrievable":1,"#, PLAN), "instances_retrievable must be true or false"),
        (service(r#""requires":["root"],"#, PLAN), "may only list"),
        (service(r#""tags":["a",""],"#, PLAN), "tags must be a list of texts"),
        (service(r#""dashboard_client":{"id":"x"},"#, PLAN), "needs an id and a secret"),
        (service(r#""metadata":7,"#, PLAN), "metadata must be an object"),
        (service(r#""metadata":{"displayName":""},"#, PLAN), "metadata.displayName"),
        (service(r#""metadata":{"imageUrl":"logo.png"},"#, PLAN), "metadata.imageUrl must be a URL"),
        (service(r#""metadata":{"shareable":"no"},"#, PLAN), "shareable must be true or false"),
        (service(r#""plan_updatable":true,"#, PLAN), "plan_updatable means nothing here"),
        (service("", PLAN).replace(r#""own""#, r#""elastic""#), "backend must be one of own, splunk, s3"),
        (service("", &PLAN.replace("\"p\"", "\"P x\"")), "a-z 0-9 -"),
        (service("", &PLAN.replace("\"p\"", &format!("\"{}\"", "p".repeat(64)))), "1 to 63"),
        (service("", &PLAN.replace("\"d\"", "\"\"")), "needs a description"),
        (service("", &PLAN.replace("\"d\"", &format!("\"{}\"", "d".repeat(256)))), "longer than 255"),
        (service("", &plan(r#""fre":true"#)), "fre means nothing here"),
        (service("", &plan(r#""free":"yes""#)), "free must be true or false"),
        (service("", &plan(r#""maximum_polling_duration":0"#)), "maximum_polling_duration must be a whole number"),
        (service("", &plan(r#""maintenance_info":{"version":"1.0"}"#)), "semantic version"),
        (service("", &plan(r#""maintenance_info":{}"#)), "semantic version"),
        (service("", &plan(r#""maintenance_info":{"version":"1.0.0","description":""}"#)), "not empty"),
        (service("", &plan(r#""metadata":{"bullets":"one"}"#)), "bullets must be a list"),
        (service("", &plan(r#""metadata":{"costs":[{"amount":{"usd":"1"},"unit":"MONTHLY"}]}"#)), "metadata.costs"),
        (service("", &plan(r#""offered":false"#)), "none of its plans is offered"),
        (service("", &plan(r#""defaults":{"size":1}"#)), "defaults: unknown field `size`"),
        (service("", &plan(r#""defaults":{"quota":{"bytes":1}}"#)), "quota has no bytes"),
        (service("", &plan(r#""defaults":{"reclaim_policy":"burn"}"#)), "defaults: "),
        (service("", &plan(&format!(r#"{schemas},"defaults":{{"segments":5}}"#))), "defaults: parameters/segments: "),
        (service("", &plan(r#""copies":2"#)), "copies must be 1, 3 or 5"),
        (
            service("", &plan(r#""defaults":{"alerts":[{"name":"a","when":"error_share"}]}"#)),
            "s/p: defaults: parameters/alerts/0/above: is needed",
        ),
        (
            service("", &plan(r#""defaults":{"alerts":[{"name":"a","when":"error_count"}]}"#)).replace("own", "splunk"),
            "only indexes of the back-end own have some",
        ),
        (service("", &plan(r#""limits":{"segments":5}"#)), "limits.segments must be a whole number, for a parameter"),
        (service("", &plan(&format!(r#"{schemas},"limits":{{"segments":"5"}}"#))), "limits.segments"),
        (
            service("", &plan(r#""schemas":{"service_binding":{"create":{"parameters":{"type":"object"}}}}"#)),
            "needs $schema",
        ),
    ] {
        let error = Catalog::parse(&text).map(drop).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}\nshould say: {complaint}");
    }
}

#[test]
fn without_a_schema_a_plan_takes_no_parameters() {
    let catalog = Catalog::parse(&service("", PLAN)).unwrap();
    let plan = plan_of(&catalog, "s", "p");
    for check in [plan.check_provision(&json!({})), plan.check_update(&json!({})), plan.check_bind(&json!({}))] {
        check.unwrap();
    }
    assert!(plan.check_provision(&json!({"a": 1})).unwrap_err().contains("takes none"));
}

#[test]
fn a_dashboard_client_is_served_whole_and_only_if_somebody_wrote_it() {
    let built_in = Catalog::parse(BUILT_IN).unwrap();
    let silent = Catalog::parse(&service("", PLAN)).unwrap();
    let client = json!({ "id": "console", "secret": "hunter2", "redirect_uri": "https://logs.example.org/" });
    let told = Catalog::parse(&service(&format!(r#""dashboard_client":{client},"#), PLAN)).unwrap();
    for minor in 11..=18 {
        for catalog in [&built_in, &silent] {
            assert!(!catalog.shown(V(minor)).to_string().contains("dashboard_client"), "2.{minor}");
        }
        assert_eq!(told.shown(V(minor))["services"][0]["dashboard_client"], client, "2.{minor}");
    }
    // Without a place to come back to it is whole too.
    let short = json!({ "id": "console", "secret": "hunter2" });
    Catalog::parse(&service(&format!(r#""dashboard_client":{short},"#), PLAN)).unwrap();
    for wrong in [
        json!({ "id": "console" }),
        json!({ "secret": "hunter2" }),
        json!({ "id": "", "secret": "hunter2" }),
        json!({ "id": "console", "secret": "" }),
        json!({ "id": "console", "secret": ["hunter2"] }),
        json!({ "id": "console", "secret": "hunter2", "redirect_uri": 7 }),
        json!({ "id": "console", "secret": "hunter2", "redirect_uri": "console" }),
        json!("hunter2"),
    ] {
        let refused = Catalog::parse(&service(&format!(r#""dashboard_client":{wrong},"#), PLAN)).map(drop).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("dashboard_client") && !text.contains("hunter2"), "{text}");
    }
}
