//! How files are laid over the catalogue, which jobs a connection gets, and what no patch changes.

use std::collections::BTreeMap;

use crate::config::assemble;
use crate::config::document::{Node, Report, Shape, Table, parse};

fn expanded(text: &str) -> (Node, Vec<String>) {
    let report = Report::default();
    let mut tree = parse("all.toml", text, &report);
    assemble(&mut tree, &BTreeMap::new(), &report);
    let problems = report.into_parts().0;
    (tree, problems.iter().map(ToString::to_string).collect())
}

fn ids(tree: &Node, section: &str) -> Vec<String> {
    let jobs = tree.at(&[section, "acme"]).and_then(Node::table);
    let entries = jobs.map(|Table(entries)| entries.iter().map(|(id, _)| id.clone()).collect());
    let mut ids: Vec<String> = entries.unwrap_or_default();
    ids.sort();
    ids
}

fn salesforce(oob: &str) -> (Node, Vec<String>) {
    expanded(&format!(
        "[connection.acme]\nkind = \"salesforce\"\noob = {oob}\n"
    ))
}

const FIRST: [&str; 5] = [
    "cases_sync",
    "company_person_sync",
    "company_sync",
    "opportunity_sync",
    "user_sync",
];

#[test]
fn a_connection_gets_what_it_asks_for() {
    let renewals = [
        "opportunity_line_item_sync",
        "opportunity_stage_sync",
        "price_book_entry_sync",
        "price_book_sync",
        "product_sync",
    ];
    let with = |more: &[&str]| {
        let mut all: Vec<&str> = FIRST.into_iter().chain(more.iter().copied()).collect();
        all.sort_unstable();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (oob, expected) in [
        ("{ catalog = 1, jobs = \"none\" }", vec![]),
        ("{ catalog = 1, jobs = \"all\" }", with(&[])),
        (
            "{ catalog = 1, jobs = \"all\", multi_currency = true }",
            with(&["currency_sync"]),
        ),
        (
            "{ catalog = 1, jobs = \"all\", company_teams = true }",
            with(&["company_teams_sync"]),
        ),
        (
            "{ catalog = 1, jobs = \"all\", renewal_center = true }",
            with(&renewals),
        ),
        (
            "{ catalog = 1, jobs = \"second\" }",
            vec!["user_sync".to_owned()],
        ),
        (
            "{ catalog = 1, jobs = \"second\", multi_currency = true, company_teams = true, renewal_center = true }",
            vec!["currency_sync".to_owned(), "user_sync".to_owned()],
        ),
        (
            "{ catalog = 1, jobs = [\"currency_sync\"] }",
            vec!["currency_sync".to_owned()],
        ),
    ] {
        let (tree, problems) = salesforce(oob);
        assert!(problems.is_empty(), "{oob}: {problems:?}");
        assert_eq!(ids(&tree, "job"), expected, "{oob}");
    }
    let (tree, problems) =
        expanded("[connection.acme]\nkind = \"dynamics\"\noob = { catalog = 1, jobs = \"all\" }\n");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(
        ids(&tree, "job"),
        ["company_person_sync", "company_sync", "user_sync"]
    );
}

#[test]
fn a_wrong_wish_is_told() {
    for (oob, told) in [
        ("{ jobs = \"all\" }", "catalog`: is missing"),
        (
            "{ catalog = 2, jobs = \"all\" }",
            "no catalogue 2 of salesforce",
        ),
        ("{ catalog = 1, jobs = \"first\" }", "not one of its values"),
        ("{ catalog = 1, jobs = true }", "a word or a list"),
        (
            "{ catalog = 1, jobs = [\"user_snyc\"] }",
            "did you mean \"user_sync\"?",
        ),
        (
            "{ catalog = 1, jobs = [\"all\"] }",
            "no job of the catalogue",
        ),
        (
            "{ catalog = 1, jobs = \"all\", multicurrency = true }",
            "unknown key",
        ),
        ("\"all\"", "a text where a table is expected"),
    ] {
        let (_, problems) = salesforce(oob);
        assert_eq!(problems.len(), 1, "{oob}: {problems:?}");
        assert!(problems[0].contains(told), "{oob}: {problems:?}");
    }
}

#[test]
fn what_a_job_depends_on_is_there() {
    let depends = |tree: &Node, job: &str| {
        let node = tree
            .at(&["job", "acme", job, "depends_on"])
            .map(|node| node.shape.clone());
        match node {
            Some(Shape::List(members)) => members
                .iter()
                .map(|member| match &member.shape {
                    Shape::Text(text) => text.clone(),
                    other => format!("{other:?}"),
                })
                .collect::<Vec<_>>(),
            _ => Vec::new(),
        }
    };
    let (tree, _) = salesforce("{ catalog = 1, jobs = \"all\" }");
    assert_eq!(depends(&tree, "user_sync"), Vec::<String>::new());
    assert_eq!(depends(&tree, "company_sync"), ["user_sync"]);
    assert_eq!(depends(&tree, "company_person_sync"), ["company_sync"]);
    assert_eq!(depends(&tree, "opportunity_sync"), ["company_sync"]);
    assert_eq!(ids(&tree, "chain"), ["company_person"]);
    let (tree, _) = salesforce("{ catalog = 1, jobs = \"all\", renewal_center = true }");
    assert_eq!(
        depends(&tree, "opportunity_sync"),
        ["company_sync", "opportunity_stage_sync"]
    );
    let (tree, _) = salesforce("{ catalog = 1, jobs = [\"company_sync\"] }");
    assert_eq!(depends(&tree, "company_sync"), Vec::<String>::new());
    assert_eq!(ids(&tree, "chain"), Vec::<String>::new());
}

fn patched(patch: &str) -> (Node, Vec<String>) {
    let base = "[connection.acme]\nkind = \"salesforce\"\noob = { catalog = 1, jobs = \"all\" }\n";
    let (tree, problems) = expanded(&format!("{base}[job.acme.user_sync]\n{patch}"));
    (tree, problems)
}

fn shape(tree: &Node, path: &str) -> String {
    let keys: Vec<&str> = ["job", "acme", "user_sync"]
        .into_iter()
        .chain(path.split('/'))
        .collect();
    tree.at(&keys)
        .map_or_else(|| "nothing".to_owned(), |node| format!("{:?}", node.shape))
}

#[test]
fn tables_merge_and_all_else_replaces() {
    let (tree, problems) = patched(
        "realtime = false\nenabled = false\nwhere = \"IsActive = true\"\n\
         [job.acme.user_sync.to.User]\nidentifiers = [\"email\"]\n\
         map = { locale = false, division = \"Division\", email = { from = \"Email\", on_null = \"keep\" } }\n\
         derive.manager.on_none = \"skip\"\navatar.active = \"IsActive\"\n",
    );
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(shape(&tree, "realtime"), "Boolean(false)");
    assert_eq!(shape(&tree, "enabled"), "Boolean(false)");
    assert_eq!(shape(&tree, "where"), "Text(\"IsActive = true\")");
    assert_eq!(shape(&tree, "name"), "Text(\"User Sync_acme\")");
    assert_eq!(shape(&tree, "to/User/map/locale"), "nothing");
    assert_eq!(shape(&tree, "to/User/map/division"), "Text(\"Division\")");
    assert_eq!(shape(&tree, "to/User/map/username"), "Text(\"Username\")");
    assert_eq!(shape(&tree, "to/User/map/email/on_null"), "Text(\"keep\")");
    assert_eq!(
        shape(&tree, "to/User/derive/manager/on_none"),
        "Text(\"skip\")"
    );
    assert_eq!(
        shape(&tree, "to/User/derive/manager/from"),
        "Text(\"User\")"
    );
    assert_eq!(shape(&tree, "to/User/avatar/user_id"), "Text(\"Id\")");
    assert!(shape(&tree, "to/User/identifiers").contains("\"email\""));
    // A changed job's tests are its own.
    assert_eq!(shape(&tree, "test"), "nothing");
}

#[test]
fn a_filter_is_narrowed_or_removed() {
    let (tree, _) = patched("and_where = \"Title = 'CSM' OR Title = 'AE'\"\n");
    assert_eq!(
        shape(&tree, "where"),
        "Text(\"(UserType = 'Standard' AND IsActive = true) AND (Title = 'CSM' OR Title = 'AE')\")"
    );
    assert_eq!(shape(&tree, "and_where"), "nothing");
    let (tree, _) = patched("where = false\n");
    assert_eq!(shape(&tree, "where"), "nothing");
    let (tree, _) = patched("[job.acme.user_sync.to.User]\nand_where = \"Email != null\"\n");
    assert_eq!(shape(&tree, "to/User/where"), "Text(\"Email != null\")");
}

#[test]
fn a_replaced_job_is_the_files_alone() {
    let whole = "replace = true\nsource = \"User\"\n[job.acme.user_sync.to.User]\nidentifiers = [\"email\"]\n\
                 map.email = \"Email\"\navatar.user_id = \"Id\"\n";
    let (tree, problems) = patched(whole);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(shape(&tree, "where"), "nothing");
    assert_eq!(shape(&tree, "replace"), "nothing");
    assert_eq!(shape(&tree, "name"), "Text(\"User Sync_acme\")");
    assert_eq!(shape(&tree, "to/User/map/username"), "nothing");
}

#[test]
fn the_ends_and_the_identity_are_fixed() {
    for patch in [
        "source = \"Contact\"\n",
        "source = false\n",
        "to = false\n",
        "to.User = false\n",
        "to.User.avatar = false\n",
        "to.User.avatar.user_id = \"Alias\"\n",
        "to.User.avatar.user_id = false\n",
        "replace = true\nsource = \"Contact\"\n[job.acme.user_sync.to.User]\navatar.user_id = \"Id\"\n",
        "replace = true\nsource = \"User\"\n[job.acme.user_sync.to.User]\navatar = {}\n",
    ] {
        let (_, problems) = patched(patch);
        assert!(
            problems.iter().any(|problem| problem.contains("is fixed")),
            "{patch}: {problems:?}"
        );
    }
    for patch in [
        "source = \"User\"\n",
        "to.User.avatar.user_id = \"Id\"\n",
        "to.Person.map.email = \"Email\"\n",
    ] {
        let (_, problems) = patched(patch);
        assert!(problems.is_empty(), "{patch}: {problems:?}");
    }
}

#[test]
fn a_job_of_no_catalogue_stands_alone() {
    let text = "[connection.acme]\nkind = \"salesforce\"\noob = { catalog = 1, jobs = [\"company_sync\"] }\n\
                [job.acme.user_sync]\nsource = \"User\"\n";
    let (tree, problems) = expanded(text);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(shape(&tree, "where"), "nothing");
    assert_eq!(ids(&tree, "job"), ["company_sync", "user_sync"]);
}

#[test]
fn variables_override_the_catalogues_jobs() {
    let report = Report::default();
    let text = "[connection.acme]\nkind = \"salesforce\"\noob = { catalog = 1, jobs = \"none\" }\n";
    let mut tree = parse("all.toml", text, &report);
    let environment = BTreeMap::from([
        (
            "TRIBUTARY__CONNECTION__ACME__OOB__JOBS".to_owned(),
            "all".to_owned(),
        ),
        (
            "TRIBUTARY__JOB__ACME__USER_SYNC__ENABLED".to_owned(),
            "false".to_owned(),
        ),
    ]);
    assemble(&mut tree, &environment, &report);
    let problems = report.into_parts().0;
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(shape(&tree, "enabled"), "Given(\"false\")");
}
