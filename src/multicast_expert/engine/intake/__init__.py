"""x"""

from multicast_expert.engine.intake.choice import Intake, NativeIntake, choose
