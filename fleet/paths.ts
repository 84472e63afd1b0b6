// The paths of files about many clients (docs/protocol.md, section 12).

export interface FleetPaths {
  /** The assignments, written by webjobctl and read by the server. */
  assignments: string;
  /** The groups, written by hand. */
  groups: string;
  /** The expectations, written by hand. */
  expect: string;
  /** The directory of claims, which the server writes. */
  claims: string;
}

/** The directory of claims in DynamicDirectory. */
export const CLAIMS = 'assignments';

/** The paths of a site, from its settings. */
export function fleetPaths({
  configDirectory,
  dynamicDirectory,
}: {
  configDirectory: string;
  dynamicDirectory: string;
}): FleetPaths {
  const folder = `${configDirectory}/nph-webjob`;
  return {
    assignments: `${folder}/assignments`,
    groups: `${folder}/groups`,
    expect: `${folder}/expect`,
    claims: `${dynamicDirectory}/${CLAIMS}`,
  };
}
