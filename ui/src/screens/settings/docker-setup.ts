import type { Schemas } from "../../backend";

export type DockerSetup = Schemas["DockerSetup"];
