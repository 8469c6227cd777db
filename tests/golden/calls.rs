//! Every call, by its owner: `tests/golden.rs` asserts that none is missing, and the fuzzing of messages takes them too.

macro_rules! every_call {
    ($take:ident) => {
        $take! {
            coordinator:
                CreateStream, DescribeStream, ListStreams, UpdateStream, TruncateStream, SealStream, DeleteStream,
                ReserveStream, RestoreStream, ScaleStream, ListSegments, ListSuccessors, ListEpochs, CreateScope,
                DeleteScope, ListScopes, BeginTransaction, PingTransaction, CommitTransaction, AbortTransaction,
                DescribeTransaction, ListTransactions, CreateGroup, ResetGroup, DescribeGroup, ListGroups,
                DeleteGroup, ReportConsumed, ListItems, DescribeItem, PutItem, DeleteItem, ReserveUpload, GrantDelegation,
                DescribePlacement, DescribeIndexKeys, RotateIndexKey;
            segment_store:
                AppendEvents, CreateSegment, SealSegment, TruncateSegment, MergeSegment, DeleteSegment,
                DescribeSegment, ReadSegment, DescribeWriter, DescribeWriters, DescribeContainer,
                ListContainerSegments, FlushContainer, AdoptSegment, ListGarbage, QuarantineObjects,
                DescribeRows, RunFragment, ReadFragment;
            index_provisioner:
                CreateIndex, UpdateIndex, DeleteIndex, ListIndexes, IssueCredentials, RevokeCredentials,
                ListBindings;
            broker:
                ListInstances, ShowInstance, RetryOperation, AbandonInstance, RotateBinding, UpgradeInstance;
            job_manager:
                SubmitJob, CancelJob, DescribeJob, ListJobs, ReportTask, ReportCheckpoint, TakeSavepoint,
                DeleteSavepoint, ListSavepoints, StopJob, RescaleJob, ShowCheckpoints, ShowExceptions, ShowFigures,
                ShowPlan, ExplainJob;
            task_worker:
                DeployTasks, CancelTasks, TriggerCheckpoint, CommitCheckpoint, ReadState;
            alerter:
                PutRule, DeleteRule, ListRules, ObserveRows;
        }
    };
}
