//! Every call, by its owner: `tests/golden.rs` asserts that none is missing, and the fuzzing of messages takes them too.

macro_rules! every_call {
    ($take:ident) => {
        $take! {
            coordinator:
                CreateStream, DescribeStream, ListStreams, UpdateStream, TruncateStream, SealStream, DeleteStream,
                ReserveStream, RestoreStream, ScaleStream, ListSegments, ListSuccessors, ListEpochs, CreateScope,
                DeleteScope, ListScopes, BeginTransaction, PingTransaction, CommitTransaction, AbortTransaction,
                DescribeTransaction, ListTransactions, CreateGroup, ResetGroup, DescribeGroup, ListGroups,
                DeleteGroup, ReportConsumed, GrantDelegation, DescribePlacement;
            segment_store:
                AppendEvents, CreateSegment, SealSegment, TruncateSegment, MergeSegment, DeleteSegment,
                DescribeSegment, ReadSegment, DescribeWriter, DescribeWriters, DescribeContainer,
                ListContainerSegments, FlushContainer, AdoptSegment, ListGarbage, QuarantineObjects;
            index_provisioner:
                CreateIndex, UpdateIndex, DeleteIndex, ListIndexes, IssueCredentials, RevokeCredentials,
                ListBindings;
            broker:
                ListInstances, ShowInstance, RetryOperation, AbandonInstance, RotateBinding, UpgradeInstance;
            job_manager:
                SubmitJob, CancelJob, DescribeJob, ListJobs, ReportTask, ReportCheckpoint;
            task_worker:
                DeployTasks, CancelTasks, TriggerCheckpoint;
            alerter:
                PutRule, DeleteRule, ListRules, ObserveRows;
        }
    };
}
