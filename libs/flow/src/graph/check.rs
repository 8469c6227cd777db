//! The rules of a job graph.

use super::{Edge, GRAPH_VERSION, JobGraph, OperatorSpec, PARALLELISM_MAX, Partition, VERTICES_MAX, Vertex, place};
use crate::Error;

fn broken(place: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Graph { place: place.into(), problem: problem.into() }
}

pub(super) fn validate(graph: &JobGraph) -> Result<Vec<usize>, Error> {
    if graph.version > GRAPH_VERSION {
        let problem =
            format!("has version {}, and this release reads up to {GRAPH_VERSION}: run a newer one", graph.version);
        return Err(broken("graph", problem));
    }
    if graph.vertices.is_empty() || graph.vertices.len() > VERTICES_MAX {
        let problem = format!("has {} vertices: 1 to {VERTICES_MAX} are allowed", graph.vertices.len());
        return Err(broken("graph", problem));
    }
    for (number, vertex) in graph.vertices.iter().enumerate() {
        self::vertex(graph, number, vertex)?;
    }
    for (number, edge) in graph.edges.iter().enumerate() {
        self::edge(graph, number, edge)?;
    }
    if let Some(twice) = graph
        .vertices
        .iter()
        .enumerate()
        .find(|(i, v)| !v.uid.0.is_empty() && graph.vertices[..*i].iter().any(|other| other.uid == v.uid))
    {
        return Err(broken(
            format!("vertex {}", twice.0),
            format!("uid {:?} is used twice: pin another", twice.1.uid.0),
        ));
    }
    order(graph)
}

fn vertex(graph: &JobGraph, number: usize, vertex: &Vertex) -> Result<(), Error> {
    let wrong = |problem: String| Err(broken(format!("vertex {number} ({})", vertex.name), problem));
    if vertex.parallelism == 0 || vertex.parallelism > PARALLELISM_MAX {
        return wrong(format!("parallelism {} is out of range: 1 to {PARALLELISM_MAX}", vertex.parallelism));
    }
    let last = vertex.operators.len().saturating_sub(1);
    for (i, operator) in vertex.operators.iter().enumerate() {
        if operator.is_source() && i > 0 {
            return wrong("a source may only begin a chain".into());
        }
        if operator.is_sink() && i < last {
            return wrong(format!("{} may only end a chain", operator.word()));
        }
        match operator {
            OperatorSpec::WindowAggregate(spec) => spec.validate().map(|_| ())?,
            OperatorSpec::Window(plan) => plan.validate()?,
            OperatorSpec::GroupAggregate(spec) => spec.validate()?,
            OperatorSpec::Over(spec) => spec.validate()?,
            OperatorSpec::TopN(spec) => spec.validate().map(|_| ())?,
            OperatorSpec::Deduplicate(spec) => spec.validate()?,
            OperatorSpec::Join(spec) => spec.validate()?,
            OperatorSpec::Pattern(spec) => spec.validate()?,
            _ => {}
        }
        operator.built()?;
        keyed(vertex, i, operator).or_else(wrong)?;
    }
    let inputs = graph.edges_into(number).count();
    let main_outputs = graph.edges.iter().any(|edge| place(edge.from) == number && edge.port.is_main());
    match (vertex.operators.first(), vertex.operators.last()) {
        (None, _) => wrong("has no operators".into()),
        (Some(first), _) if first.is_source() && inputs > 0 => {
            wrong("begins with a source, so no edge may lead in".into())
        }
        (Some(first), _) if !first.is_source() && inputs == 0 => {
            wrong("has no input: begin with a source or add an edge".into())
        }
        (Some(first), _) if first.inputs() > 1 && inputs != first.inputs() => {
            wrong(format!("its {} takes {} inputs and has {inputs}", first.word(), first.inputs()))
        }
        (_, Some(last)) if last.is_sink() && main_outputs => wrong("ends with a sink, so no edge may lead out".into()),
        (_, Some(last)) if !last.is_sink() && !main_outputs => {
            wrong("its output goes nowhere: end with a sink or add an edge".into())
        }
        _ => Ok(()),
    }
}

/// An operator with keys begins its chain, where rows come in by its keys; or has the same keys as the one that does. More
/// keys would meet as well, but state is cut by the hash of an operator's own keys, and a task's share by that of the first.
fn keyed(vertex: &Vertex, at: usize, operator: &OperatorSpec) -> Result<(), String> {
    let Some(keys) = operator.keys(0).filter(|_| at > 0 && vertex.parallelism > 1) else { return Ok(()) };
    let first = vertex.operators.first().and_then(|first| first.keys(0));
    if first.is_some_and(|first| !first.is_empty() && first == keys) {
        return Ok(());
    }
    Err(format!("a {} begins its chain: its input comes over a hash edge by its keys", operator.word()))
}

fn edge(graph: &JobGraph, number: usize, edge: &Edge) -> Result<(), Error> {
    let wrong = |problem: String| Err(broken(format!("edge {number} ({} to {})", edge.from, edge.to), problem));
    let (Some(from), Some(to)) = (graph.vertices.get(place(edge.from)), graph.vertices.get(place(edge.to))) else {
        return wrong(format!("names a vertex that does not exist: there are {}", graph.vertices.len()));
    };
    if graph.edges[..number].iter().any(|other| (other.from, other.to) == (edge.from, edge.to)) {
        return wrong("is there twice".into());
    }
    if edge.partition == Partition::Forward && from.parallelism != to.parallelism {
        return wrong(format!(
            "is forward between parallelism {} and {}: make them equal or use hash",
            from.parallelism, to.parallelism
        ));
    }
    // A key's rows must meet in one subtask. A single subtask is a meeting place of its own.
    let input = graph.edges[..number].iter().filter(|other| other.to == edge.to).count();
    let first = to.operators.first();
    if let Some((word, keys)) = first.and_then(|o| Some((o.word(), o.keys(input)?))) {
        let keyed = matches!(&edge.partition, Partition::Hash { columns } if *columns == *keys);
        if !keyed && to.parallelism > 1 {
            return wrong(format!("feeds a {word} and must be hash by its keys ({})", keys.join(", ")));
        }
    }
    Ok(())
}

/// Feeders first; whatever remains without a feeder-free vertex is a circle.
fn order(graph: &JobGraph) -> Result<Vec<usize>, Error> {
    let mut done: Vec<usize> = Vec::with_capacity(graph.vertices.len());
    while done.len() < graph.vertices.len() {
        let ready = (0..graph.vertices.len())
            .find(|v| !done.contains(v) && graph.edges_into(*v).all(|edge| done.contains(&place(edge.from))));
        let Some(ready) = ready else {
            let stuck = (0..graph.vertices.len()).find(|v| !done.contains(v)).unwrap_or(0);
            return Err(broken(format!("vertex {stuck}"), "is part of a circle: a job graph has none"));
        };
        done.push(ready);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    #[test]
    fn each_rule_is_named() {
        type Break = fn(&mut JobGraph);
        let cases: &[(&str, Break)] = &[
            ("1 to 64", |g| g.vertices.clear()),
            ("out of range", |g| g.vertices[0].parallelism = 0),
            ("out of range", |g| g.vertices[1].parallelism = 257),
            ("no operators", |g| g.vertices[0].operators.clear()),
            ("only begin a chain", |g| g.vertices[0].operators.reverse()),
            ("only end a chain", |g| {
                let sink = g.vertices[1].operators[1].clone();
                g.vertices[1].operators.push(sink);
            }),
            ("goes nowhere", |g| {
                g.vertices[1].operators.pop();
            }),
            ("has no input", |g| {
                g.vertices[0].operators.remove(0);
            }),
            ("does not exist", |g| g.edges.push(Edge::new(0, 9, Partition::Forward))),
            ("twice", |g| g.edges.push(g.edges[0].clone())),
            ("no edge may lead in", |g| g.edges.push(Edge::new(1, 0, Partition::Forward))),
            ("hash by its keys", |g| g.edges[0].partition = Partition::Forward),
            ("make them equal", |g| {
                g.edges[0].partition = Partition::Forward;
                g.vertices[0].parallelism = 3;
            }),
            ("used twice", |g| g.vertices.iter_mut().for_each(|v| v.uid.0 = "x".into())),
            ("circle", |g| {
                g.vertices[1].operators.pop();
                g.vertices.push(Vertex {
                    operators: vec![OperatorSpec::Filter { sql: "true".into() }],
                    ..g.vertices[1].clone()
                });
                let columns = vec!["service".to_owned()];
                g.edges.push(Edge::new(1, 2, Partition::Forward));
                g.edges.push(Edge::hash(2, 1, columns));
            }),
        ];
        for (wanted, spoil) in cases {
            let mut spoiled = graph(2);
            assert!(spoiled.validate().is_ok());
            spoil(&mut spoiled);
            let found = spoiled.validate().unwrap_err().to_string();
            assert!(found.contains(wanted), "{found:?} does not say {wanted:?}");
        }
    }
}
