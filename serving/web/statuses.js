// The statuses of jobs as the farm reports them in GET /v1/me: which there are, what each means, and which actions it
// allows. There is no other list of them in the studio.

const UNKNOWN = { is_live: false, is_over: false, actions: [] };

let meanings = new Map();

/** Takes over `statuses` of GET /v1/me, before any view is shown. */
export const learnStatuses = (statuses) => (meanings = new Map(statuses.map((one) => [one.status, one])));

/** Every status, in the order in which jobs go through them. */
export const listStatuses = () => [...meanings.keys()];

const meaningOf = (job) => meanings.get(job.status) ?? UNKNOWN;

/** Whether the job waits or renders. */
export const isLive = (job) => meaningOf(job).is_live;

/** Whether nothing more happens to the job by itself. */
export const isOver = (job) => meaningOf(job).is_over;

/** What a person may ask of the job: paths below it. */
export const actionsOf = (job) => meaningOf(job).actions;
