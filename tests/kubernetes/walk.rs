//! The walk of `docs/guide/kubernetes.md`: its commands as they stand, and between them what a kubelet and the service catalog would do.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use logboom_tests::{Answer, Standalone, Workdir, eventually, logboom, root};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    bed::Bed,
    keys::{command, secret},
};

const GUIDE: &str = "docs/guide/kubernetes.md";
/// How long a service instance may take.
const PROVISIONED_WITHIN: Duration = Duration::from_secs(30);

/// The headings of the guide with the commands below each: the fences that say `sh`.
fn steps() -> Vec<(String, String)> {
    let guide = fs::read_to_string(root().join(GUIDE)).unwrap();
    let (mut steps, mut inside) = (Vec::<(String, String)>::new(), false);
    for line in guide.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                let (_, commands) = steps.last_mut().expect("commands stand below a heading");
                *commands += &format!("{line}\n");
            }
            line => steps.extend(line.strip_prefix("## ").map(|heading| (heading.to_owned(), String::new()))),
        }
    }
    steps.retain(|(_, commands)| !commands.is_empty());
    steps
}

/// A cluster without kubelets, and what plays them.
struct Walk<'a> {
    bed: &'a Bed,
    dir: Workdir,
    services: Option<Standalone>,
}

impl Walk<'_> {
    /// Runs commands of the guide as their reader would, and gives what they print.
    fn shell(&self, commands: &str) -> String {
        let kubectl = self.bed.command();
        let programs = [Path::new(kubectl.get_program()), &logboom().unwrap()].map(|p| p.parent().unwrap().to_owned());
        let before = env::var_os("PATH").unwrap();
        let path = env::join_paths(programs.into_iter().chain(env::split_paths(&before))).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]).current_dir(root()).env("PATH", path);
        bash.env("KUBECONFIG", self.bed.api.kubeconfig(self.bed.api.admin()).unwrap());
        if let Some(services) = &self.services {
            bash.env("LOGBOOM_GATEWAY", &services.api.gateway);
        }
        self.bed.run(&mut bash)
    }

    /// A kubelet starts the Job's pod, which makes the Secrets, and then the services, which have their keys from there.
    async fn start_pods(&mut self) {
        let dir = self.dir.path().join("job");
        let mut job = command(self.bed, "keys", "keys", &dir).await;
        let done = tokio::task::spawn_blocking(move || job.output().unwrap()).await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let data = self.dir.path().join("data");
        let keys = data.join("keys");
        fs::create_dir_all(&keys).unwrap();
        for name in ["logboom-keyring", "logboom-keys"] {
            let found = self.bed.api.get(&format!("/api/v1/namespaces/logboom/secrets/{name}")).await.unwrap();
            for key in found["data"].as_object().unwrap().keys() {
                fs::write(keys.join(key), secret(self.bed, name, key).await).unwrap();
            }
        }
        self.services = Some(Standalone::start_on(&data, &[]).await.unwrap());
    }

    /// The service catalog calls the broker that was registered, for the instance and the binding that were asked for.
    async fn serve_catalog(&self) {
        let kind = |kind: &str| format!("/apis/servicecatalog.k8s.io/v1beta1/{kind}");
        let broker = self.bed.api.get(&kind("clusterservicebrokers/logboom")).await.unwrap();
        assert_eq!(broker["spec"]["url"], "http://broker.logboom.svc:7701", "the Service in front of the broker");
        let reference = &broker["spec"]["authInfo"]["basic"]["secretRef"];
        assert_eq!(reference, &json!({"namespace": "logboom", "name": "logboom-broker"}));
        let instance = self.bed.api.get(&kind("namespaces/shop/serviceinstances/shop-logs")).await.unwrap();
        let binding = self.bed.api.get(&kind("namespaces/shop/servicebindings/shop-logs")).await.unwrap();
        assert_eq!(binding["spec"]["instanceRef"]["name"], instance["metadata"]["name"]);

        let catalog = self.osb(Method::GET, "/v2/catalog", None).await.ok().unwrap();
        let named = |list: &Value, name: &Value| {
            list.as_array()
                .unwrap()
                .iter()
                .find(|one| one["name"] == *name)
                .cloned()
                .unwrap_or_else(|| panic!("no {name}"))
        };
        let class = named(&catalog["services"], &instance["spec"]["clusterServiceClassExternalName"]);
        let plan = named(&class["plans"], &instance["spec"]["clusterServicePlanExternalName"]);
        let ids = json!({"service_id": class["id"], "plan_id": plan["id"]});
        let (id, binding_id) = ("6f0c1f5e-3c52-4a67-9d6a-1f3d5e7a9b01", "6f0c1f5e-3c52-4a67-9d6a-1f3d5e7a9b02");
        let mut wish = ids.clone();
        wish["organization_guid"] = json!("cluster");
        wish["space_guid"] = json!("namespace");
        wish["context"] = json!({"platform": "kubernetes", "namespace": "shop", "clusterid": "cluster", "instance_name": "shop-logs"});
        wish["parameters"] = instance["spec"]["parameters"].clone();
        let path = format!("/v2/service_instances/{id}");
        let begun = self.osb(Method::PUT, &format!("{path}?accepts_incomplete=true"), Some(&wish)).await;
        if begun.status == 202 {
            eventually("the service instance", PROVISIONED_WITHIN, async || {
                let state = self.osb(Method::GET, &format!("{path}/last_operation"), None).await.ok()?;
                anyhow::ensure!(state["state"] == "succeeded", "{state}");
                Ok(())
            })
            .await
            .unwrap();
        } else {
            assert_eq!(begun.status, 201, "{}", begun.text);
        }
        let mut wish = ids;
        wish["bind_resource"] = json!({"app_guid": "namespace"});
        let bound =
            self.osb(Method::PUT, &format!("{path}/service_bindings/{binding_id}"), Some(&wish)).await.ok().unwrap();
        // Each key of the credentials becomes one of the Secret; what is no text goes in as JSON.
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let credentials = bound["credentials"].as_object().unwrap();
        let data: Map<_, _> = credentials.iter().map(|(key, value)| (key.clone(), text(value).into())).collect();
        let name = &binding["spec"]["secretName"];
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        self.bed.api.create("/api/v1/namespaces/shop/secrets", &secret).await.unwrap();
    }

    async fn osb(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let api = &self.services.as_ref().unwrap().api;
        let user = secret(self.bed, "logboom-broker", "username").await;
        let password = secret(self.bed, "logboom-broker", "password").await;
        let request = api.bare(method, &format!("{}{path}", api.broker)).basic_auth(user, Some(password));
        let request = request.header("X-Broker-API-Version", "2.14");
        let request = if let Some(body) = body { request.json(body) } else { request };
        Answer::of(request).await.unwrap()
    }

    /// A kubelet runs the pod of the team: environment from the Secret, the file from the ConfigMap.
    async fn run_pod(&self) {
        let pod = self.bed.api.get("/api/v1/namespaces/shop/pods/shop").await.unwrap();
        let container = &pod["spec"]["containers"][0];
        let mut env = BTreeMap::new();
        for entry in container["env"].as_array().unwrap() {
            let key = &entry["valueFrom"]["secretKeyRef"];
            let path = format!("/api/v1/namespaces/shop/secrets/{}", key["name"].as_str().unwrap());
            let secret = self.bed.api.get(&path).await.unwrap();
            let value = secret["data"][key["key"].as_str().unwrap()].as_str().unwrap_or_else(|| panic!("no {key}"));
            let value = String::from_utf8(data_encoding::BASE64.decode(value.as_bytes()).unwrap()).unwrap();
            env.insert(entry["name"].as_str().unwrap().to_owned(), value);
        }
        let mounted = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        let lines = self.bed.api.get("/api/v1/namespaces/shop/configmaps/shop-lines").await.unwrap();
        let dir = self.dir.path().join("lines");
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in lines["data"].as_object().unwrap() {
            fs::write(dir.join(name), text.as_str().unwrap()).unwrap();
        }
        let args = container["args"].as_array().unwrap().iter().map(|arg| {
            let filled = env
                .iter()
                .fold(arg.as_str().unwrap().to_owned(), |arg, (key, value)| arg.replace(&format!("$({key})"), value));
            filled.strip_prefix(mounted).map_or(PathBuf::from(&filled), |rest| dir.join(rest.trim_start_matches('/')))
        });
        let mut command = Command::new(logboom().unwrap());
        command.args(args).envs(&env).current_dir(self.dir.path());
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Nothing is applied yet; at the end the overlay `dev` is there, with its Secrets, and the namespace of a team.
pub(crate) async fn the_guide_goes_from_apply_to_a_log_line(bed: &Bed) {
    let steps = steps();
    let headings: Vec<_> = steps.iter().map(|(heading, _)| heading.as_str()).collect();
    let expected = ["Apply", "Secrets", "Register the broker", "Ask for an index", "Publish", "Find the line"];
    assert_eq!(headings, expected, "what is done between the commands goes by the headings");
    let mut walk = Walk { bed, dir: Workdir::new("kubernetes").unwrap(), services: None };
    for (heading, commands) in steps {
        if heading == "Publish" {
            // The controller of ServiceAccounts has made it by now.
            walk.bed.kubectl("--namespace shop create serviceaccount default");
        }
        let printed = walk.shell(&commands);
        match heading.as_str() {
            "Apply" => walk.start_pods().await,
            "Secrets" => assert!(printed.contains("logboom-keys") && printed.contains("logboom-broker"), "{printed}"),
            "Register the broker" => assert!(printed.contains("http://broker.logboom.svc:7701"), "{printed}"),
            "Ask for an index" => walk.serve_catalog().await,
            "Publish" => walk.run_pod().await,
            _ => assert!(printed.contains("payment of order 17 refused") && !printed.contains("opens"), "{printed}"),
        }
    }
}
